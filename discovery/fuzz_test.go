package discovery

import (
	"testing"
	"time"
)

func FuzzDecodeSnapshot(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Add([]byte(`{"version":1,"services":[{"service":"a","confirmed":"2026-01-02T03:04:05Z","endpoints":[{"id":"x","addr":"10.0.0.1:80","weight":1}]}]}`))
	f.Add([]byte(`{"version":1,"services":[{"service":"a","confirmed":"2026-01-02T03:04:05Z","endpoints":[{"id":"x","addr":"","weight":1}]}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := decodeSnapshot(data, now)
		if err != nil && records != nil {
			t.Fatal("records beside an error")
		}
		for _, r := range records {
			if r.Service == "" || len(r.Endpoints) == 0 || now.Sub(r.Confirmed) > snapshotAge {
				t.Fatalf("unusable record %+v", r)
			}
			for _, e := range r.Endpoints {
				if !e.Addr.IsValid() || e.Addr.Port() == 0 || e.Weight < 1 || e.ID == "" {
					t.Fatalf("unusable endpoint %+v", e)
				}
			}
		}
	})
}
