package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// snapshotAge is how old a set from disk may be. Older addresses have
	// likelier been given to somebody else than kept.
	snapshotAge = 24 * time.Hour
	// snapshotEvery bounds how old an unchanged set looks on disk.
	snapshotEvery = 10 * time.Minute
	// snapshotDelay gathers changes that come together into one write.
	snapshotDelay = 100 * time.Millisecond
	snapshotBytes = 64 << 20
)

// snapshot is the memory of sets on disk. It keeps those of released queries
// until they are too old, so that an orderly stop does not forget them.
type snapshot struct {
	path string
	wake chan struct{} // has one element after a change

	mu    sync.Mutex
	known map[Query]record
	dirty bool
}

// record is the file's form of one set.
type record struct {
	Service   string           `json:"service"`
	Tag       string           `json:"tag,omitempty"`
	Confirmed time.Time        `json:"confirmed"`
	Changed   time.Time        `json:"changed"`
	Endpoints []recordEndpoint `json:"endpoints"`
}

type recordEndpoint struct {
	ID     string            `json:"id"`
	Addr   netip.AddrPort    `json:"addr"`
	Weight int               `json:"weight"`
	Tags   []string          `json:"tags,omitempty"`
	Meta   map[string]string `json:"meta,omitempty"`
}

// snapshotFile is the whole file.
type snapshotFile struct {
	Version  int      `json:"version"`
	Services []record `json:"services"`
}

func newSnapshot(path string) *snapshot {
	return &snapshot{path: path, wake: make(chan struct{}, 1), known: map[Query]record{}}
}

// load reads the file; one that does not exist is an empty one.
func (s *snapshot) load(now time.Time) error {
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() > snapshotBytes {
		err = fmt.Errorf("larger than %d bytes", snapshotBytes)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(s.path)
	}
	var records []record
	if err == nil {
		records, err = decodeSnapshot(data, now)
	}
	if err != nil {
		return fmt.Errorf("discovery snapshot %s: %w", s.path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		s.known[r.query()] = r
	}
	return nil
}

// decodeSnapshot returns the usable records of a file: not too old, not from
// the future, and with nothing in them that a source could not have found.
func decodeSnapshot(data []byte, now time.Time) ([]record, error) {
	var f snapshotFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("version %d, want 1", f.Version)
	}
	var good []record
	for _, r := range f.Services {
		if r.Service == "" || len(r.Endpoints) == 0 || !r.fresh(now) {
			continue
		}
		for i, e := range r.Endpoints {
			if e.ID == "" || !e.Addr.IsValid() || e.Addr.Port() == 0 || e.Weight < 1 {
				return nil, fmt.Errorf("service %q: endpoint %d is not usable", r.Service, i)
			}
		}
		good = append(good, r)
	}
	return good, nil
}

func (r record) query() Query { return Query{Service: r.Service, Tag: r.Tag} }

func (r record) fresh(now time.Time) bool {
	age := now.Sub(r.Confirmed)
	return age <= snapshotAge && age > -time.Hour // a clock may have been set back a little
}

// recall returns the remembered set of q.
func (s *snapshot) recall(q Query, now time.Time) (*set, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.known[q]
	if !ok || !r.fresh(now) {
		return nil, false
	}
	eps := make([]Endpoint, len(r.Endpoints))
	for i, e := range r.Endpoints {
		eps[i] = Endpoint(e)
	}
	return &set{endpoints: eps, confirmed: r.Confirmed, changed: r.Changed, restored: true}, true
}

// remember notes a set for the next write. An empty one is forgotten: a start
// without the source gains nothing from it, and must not get an older one.
func (s *snapshot) remember(q Query, found *set, changed bool) {
	r := record{Service: q.Service, Tag: q.Tag, Confirmed: found.confirmed, Changed: found.changed}
	r.Endpoints = make([]recordEndpoint, len(found.endpoints))
	for i, e := range found.endpoints {
		r.Endpoints[i] = recordEndpoint(e)
	}
	s.mu.Lock()
	if len(r.Endpoints) == 0 {
		delete(s.known, q)
	} else {
		s.known[q] = r
	}
	s.dirty = true
	s.mu.Unlock()
	if changed {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// run writes the file after changes, and at times without, until ctx ends.
func (s *snapshot) run(ctx context.Context, now func() time.Time, report func(error)) {
	tick := time.NewTicker(snapshotEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.wake:
			select {
			case <-ctx.Done():
				return
			case <-time.After(snapshotDelay):
			}
		}
		if err := s.write(now()); err != nil {
			report(err)
		}
	}
}

// write replaces the file as a whole, so that a crash leaves the old one or
// the new one.
func (s *snapshot) write(now time.Time) error {
	data, err := s.encode(now)
	if err != nil || data == nil {
		return err
	}
	if err := replaceFile(s.path, data); err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
		return fmt.Errorf("discovery snapshot: %w", err)
	}
	return nil
}

// encode is the new content of the file, nil when nothing is new.
func (s *snapshot) encode(now time.Time) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return nil, nil
	}
	f := snapshotFile{Version: 1, Services: []record{}}
	for q, r := range s.known {
		if !r.fresh(now) {
			delete(s.known, q)
			continue
		}
		f.Services = append(f.Services, r)
	}
	sortByQuery(f.Services, record.query)
	data, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return nil, fmt.Errorf("discovery snapshot: %w", err)
	}
	s.dirty = false
	return append(data, '\n'), nil
}

// replaceFile writes data beside path, readable by the owner only, and renames
// it once it is on disk.
func replaceFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
