package dev

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzRegistration(f *testing.F) {
	f.Add([]byte(`{"Name":"a","Port":80,"Meta":{"k":"v"},"Weights":{"Passing":1,"Warning":1},"Check":{"TTL":"10s"}}`))
	f.Add([]byte(`{"Name":"a","Checks":[null,{},{"HTTP":"http://x/","Interval":"1s"},{"TCP":"x:1","Interval":"1s"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		reg, err := decodeRegistration(bytes.NewReader(data))
		if err != nil {
			return
		}
		if reg.Name == "" || reg.ID == "" || reg.Weights.Passing < 1 {
			t.Fatalf("accepted %+v", reg)
		}
		for _, d := range reg.definitions() {
			if d.CheckID == "" || (d.ttl <= 0) == (d.interval <= 0) {
				t.Fatalf("accepted check %+v", d)
			}
		}
		s := &service{registration: reg}
		if _, err := json.Marshal(s.view()); err != nil {
			t.Fatal(err)
		}
	})
}
