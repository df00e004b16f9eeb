package authserver_test

import (
	"context"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/keys"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// kek is shared by all rings, so that replicas can read each other's keys.
var kek = keys.NewKekText()

func openKeys(t testing.TB, st store.Store, now func() time.Time) authserver.Keys {
	t.Helper()
	k, err := keys.ParseKek(kek)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.Open(context.Background(), st, keys.Config{Keks: []keys.Kek{k}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return ring
}
