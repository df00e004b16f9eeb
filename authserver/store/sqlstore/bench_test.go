package sqlstore

import (
	"crypto/sha256"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// BenchmarkRotateRefresh rotates families of many users at once, one
// generation a call.
func BenchmarkRotateRefresh(b *testing.B) {
	eachDatabase(b, func(b *testing.B, s *Store) {
		now := time.Now()
		var workers atomic.Int64
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			f := store.Family{Grant: fmt.Sprint("grant-", b.N, "-", workers.Add(1)), ClientID: "c", Subject: "usr_1",
				Scopes: []string{"openid", "read:orders"}, Created: now, Expires: now.Add(time.Hour), IdleUntil: now.Add(time.Hour),
				Generation: 1, Hash: digest(1)}
			if err := s.AddFamily(b.Context(), f); err != nil {
				b.Error(err)
			}
			for g := 1; pb.Next(); g++ {
				_, _, err := s.RotateRefresh(b.Context(), store.Rotation{Grant: f.Grant, ClientID: "c", Presented: digest(g),
					Next: digest(g + 1), Generation: g, Now: now, IdleUntil: f.IdleUntil, Grace: 10 * time.Second, TokenLife: time.Minute})
				if err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkConsumeCode redeems codes that were stored before, each into a
// family of its own.
func BenchmarkConsumeCode(b *testing.B) {
	eachDatabase(b, func(b *testing.B, s *Store) {
		now := time.Now()
		codes := make([]store.Digest, b.N)
		for i := range codes {
			codes[i] = digest(b.N, i)
			if err := s.AddCode(b.Context(), store.Code{Hash: codes[i], ClientID: "c", Subject: "usr_1", Expires: now.Add(time.Minute)}); err != nil {
				b.Fatal(err)
			}
		}
		var next atomic.Int64
		b.SetParallelism(8)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				i := next.Add(1) - 1
				f := store.Family{Grant: fmt.Sprint("grant-", b.N, "-", i), ClientID: "c", Subject: "usr_1", Created: now,
					Expires: now.Add(time.Hour), IdleUntil: now.Add(time.Hour), Generation: 1, Hash: digest(1)}
				if err := s.ConsumeCode(b.Context(), codes[i], now, &f); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func eachDatabase(b *testing.B, f func(b *testing.B, s *Store)) {
	for name, dsn := range map[string]func(testing.TB) string{
		"SQLite": sqliteFile, "Postgres": servers.Postgres,
		"PostgresWaitsForDisk": func(t testing.TB) string { return servers.StartPostgres(t, "fsync=on").Database() },
	} {
		b.Run(name, func(b *testing.B) {
			s, err := Open(b.Context(), dsn(b), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			b.ReportAllocs()
			f(b, s)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
		})
	}
}

func digest(parts ...any) store.Digest { return sha256.Sum256(fmt.Append(nil, parts...)) }
