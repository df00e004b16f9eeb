package auth

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/plugins"
)

func someone() *plugins.Principal {
	return &plugins.Principal{
		Issuer: ownIssuer, Subject: "usr_1", ClientID: "web", Session: "s1", Grant: "g1", TokenID: "j1",
		Issued: t0,
	}
}

// Every combination of levels, each with an entry that hits and one that
// misses: a token is denied if and only if at least one hits.
func TestDeniedIfAnyLevelMatches(t *testing.T) {
	rows := []struct {
		level     oauth.Level
		hit, miss string
	}{
		{oauth.LevelIssuer, ownIssuer, "https://other.example"},
		{oauth.LevelClient, "web", "web2"},
		{oauth.LevelSubject, "usr_1", "usr_2"},
		{oauth.LevelSession, "s1", "s2"},
		{oauth.LevelGrant, "g1", "g2"},
		{oauth.LevelToken, "j1", "j2"},
	}
	for hits := range 1 << len(rows) {
		for _, late := range []bool{false, true} {
			d := NewDenied(ownIssuer)
			want := false
			for i, row := range rows {
				id := row.miss
				if hits&(1<<i) != 0 {
					id = row.hit
				}
				r := oauth.Revocation{Seq: uint64(i + 1), Level: row.level, ID: id, Expires: t0.Add(time.Hour)}
				bounded := i < 3 // issuer, client, subject
				if bounded {
					r.NotBefore = t0
					if late {
						r.NotBefore = t0.Add(-time.Second)
					}
				}
				want = want || id == row.hit && !(bounded && late)
				d.Apply([]oauth.Revocation{r})
			}
			if got := d.Denies(someone()); got != want {
				t.Fatalf("hits %06b late %v: denied %v, want %v", hits, late, got, want)
			}
		}
	}
}

func TestDeniedLevelsDoNotMixNames(t *testing.T) {
	d := NewDenied(ownIssuer)
	d.Apply([]oauth.Revocation{
		{Seq: 1, Level: oauth.LevelToken, ID: "usr_1"}, {Seq: 2, Level: oauth.LevelGrant, ID: "s1"},
		{Seq: 3, Level: oauth.LevelSession, ID: "web"}, {Seq: 4, Level: oauth.LevelClient, ID: "j1"},
		{Seq: 5, Level: oauth.LevelSubject, ID: "g1"}, {Seq: 6, Level: "later-level", ID: "usr_1"},
		{Seq: 7, Level: oauth.LevelSession, ID: ""},
	})
	if d.Denies(someone()) {
		t.Error("an entry of another level denied")
	}
	if d.Head() != 7 || d.Len() != 5 {
		t.Errorf("head %d, len %d", d.Head(), d.Len())
	}
	bare := &plugins.Principal{Issuer: ownIssuer, Subject: "x", Issued: t0}
	if d.Denies(bare) {
		t.Error("a token without sid was denied by an empty name")
	}
}

func TestDeniedIssuedInTheSameSecond(t *testing.T) {
	d := NewDenied(ownIssuer)
	d.Apply([]oauth.Revocation{{Seq: 1, Level: oauth.LevelSubject, ID: "usr_1", NotBefore: t0.Add(900 * time.Millisecond), Expires: t0.Add(time.Hour)}})
	p := someone()
	if !d.Denies(p) {
		t.Error("a token of the same second passed")
	}
	p.Issued = t0.Add(time.Second)
	if d.Denies(p) {
		t.Error("a token of the next second was denied")
	}
	// A second, later entry moves the line; an earlier one does not move it back.
	for _, nbf := range []time.Time{t0.Add(5 * time.Second), t0.Add(-time.Hour)} {
		d.Apply([]oauth.Revocation{{Seq: 2, Level: oauth.LevelSubject, ID: "usr_1", NotBefore: nbf, Expires: t0.Add(time.Hour)}})
	}
	if !d.Denies(p) {
		t.Error("the later entry is lost")
	}
}

func TestDeniedConcernsTheOwnIssuerOnly(t *testing.T) {
	d := NewDenied(ownIssuer)
	d.Apply([]oauth.Revocation{{Seq: 1, Level: oauth.LevelSubject, ID: "usr_1"}})
	p := someone()
	p.Issuer = "https://idp.partner.example"
	if d.Denies(p) {
		t.Error("a namesake of another issuer was denied")
	}
}

func TestDeniedKeptUntilNoTokenIsAccepted(t *testing.T) {
	d := NewDenied(ownIssuer)
	var log []oauth.Revocation
	for i := range 1000 {
		log = append(log, oauth.Revocation{
			Seq: uint64(i), Level: oauth.LevelToken, ID: fmt.Sprint("j", i), Expires: t0.Add(time.Duration(i) * time.Second),
		})
	}
	d.Apply(log)
	if n := d.Sweep(t0.Add(500*time.Second + leeway*time.Second)); n != 411 {
		t.Errorf("swept %d", n)
	}
	p := someone()
	for i := range 1000 {
		p.TokenID = fmt.Sprint("j", i)
		if want := i > 410; d.Denies(p) != want {
			t.Fatalf("j%d: denied %v", i, !want)
		}
	}
	if d.Sweep(t0.Add(24*time.Hour)) != 589 || d.Len() != 0 {
		t.Errorf("left %d", d.Len())
	}
}

func TestDeniedReadsBesideWrites(t *testing.T) {
	d := NewDenied(ownIssuer)
	var applied atomic.Int64
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			p := someone()
			for ctx.Err() == nil {
				n := applied.Load()
				p.TokenID = fmt.Sprint("t", n)
				if n > 0 && !d.Denies(p) {
					t.Error("an applied entry was missed")
					return
				}
			}
		})
	}
	for i := int64(1); i <= 5000; i++ {
		d.Apply([]oauth.Revocation{{Seq: uint64(i), Level: oauth.LevelToken, ID: fmt.Sprint("t", i), Expires: t0.Add(time.Hour)}})
		applied.Store(i)
		if i%1000 == 0 {
			d.Sweep(t0)
		}
	}
	stop()
	wg.Wait()
}

func TestDeniedSweepsWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDenied(ownIssuer)
		d.Apply([]oauth.Revocation{
			{Seq: 1, Level: oauth.LevelToken, ID: "a", Expires: time.Now().Add(time.Minute)},
			{Seq: 2, Level: oauth.LevelToken, ID: "b", Expires: time.Now().Add(time.Hour)},
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(ctx, time.Now) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if d.Len() != 1 {
			t.Errorf("%d entries after ten minutes, want 1", d.Len())
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func filled(n int) *Denied {
	d := NewDenied(ownIssuer)
	for i := range n {
		l := []oauth.Level{oauth.LevelToken, oauth.LevelGrant, oauth.LevelSession, oauth.LevelSubject, oauth.LevelClient}[i%5]
		d.Apply([]oauth.Revocation{{Seq: uint64(i), Level: l, ID: fmt.Sprintf("id-of-usual-length-%d", i), Expires: t0.Add(time.Hour)}})
	}
	return d
}

func BenchmarkDenies(b *testing.B) {
	for _, n := range []int{0, 1000, 300_000} {
		d, people := filled(n), make([]*plugins.Principal, 1024)
		for i := range people {
			people[i] = someone()
			people[i].TokenID = fmt.Sprintf("01HZX5N3W9Q7B2K4M6P8R0T1-%d", i)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if d.Denies(people[i&1023]) {
					b.Fatal("denied")
				}
				i++
			}
		})
	}
}
