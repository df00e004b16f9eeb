package revfeed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// memoryLog is a log without a database.
type memoryLog struct {
	mu      sync.Mutex
	entries []oauth.Revocation
	head    uint64
	err     error
	reads   atomic.Int64
}

func (l *memoryLog) RevokedSince(_ context.Context, after uint64, limit int) ([]oauth.Revocation, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads.Add(1)
	var found []oauth.Revocation
	for _, e := range l.entries {
		if e.Seq > after && len(found) < limit {
			found = append(found, e)
		}
	}
	return found, l.head, l.err
}

func (l *memoryLog) append(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		l.head++
		l.entries = append(l.entries, revocation(l.head))
	}
}

func (l *memoryLog) change(f func(l *memoryLog)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l)
}

func revocation(seq uint64) oauth.Revocation {
	return oauth.Revocation{Seq: seq, Level: oauth.LevelToken, ID: fmt.Sprint("jti-", seq), Expires: time.UnixMicro(1e15 + int64(seq)).UTC()}
}

// edge collects what was applied.
type edge struct {
	mu   sync.Mutex
	seqs map[uint64]int
	ids  map[string]bool
}

func (e *edge) apply(entries []oauth.Revocation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seqs == nil {
		e.seqs, e.ids = map[uint64]int{}, map[string]bool{}
	}
	for _, r := range entries {
		e.seqs[r.Seq]++
		e.ids[r.ID] = true
	}
}

func (e *edge) has(from, to uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for seq := from; seq <= to; seq++ {
		if e.seqs[seq] == 0 {
			return false
		}
	}
	return true
}

// scripted is a stream whose reads a test answers.
type scripted chan answer

type answer struct {
	seqs []uint64
	last uint64
	err  error
}

func (s scripted) Read(ctx context.Context, _ uint64, wait time.Duration) ([]oauth.Revocation, uint64, error) {
	select {
	case a := <-s:
		var entries []oauth.Revocation
		for _, seq := range a.seqs {
			entries = append(entries, revocation(seq))
		}
		return entries, max(a.last, append(a.seqs, 0)[max(len(a.seqs)-1, 0)]), a.err
	case <-time.After(wait):
		return nil, 0, nil
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

// follow runs f in a bubble with its log, edge and stream, and stops the
// follower afterwards.
func follow(t *testing.T, withStream bool, f func(t *testing.T, log *memoryLog, e *edge, follower *Follower, stream scripted, errs *[]error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log, e, errs := &memoryLog{}, &edge{}, &[]error{}
		follower := NewFollower(FollowerConfig{Log: log, Apply: e.apply, OnError: func(err error) { *errs = append(*errs, err) }})
		stream := make(scripted)
		if withStream {
			follower.stream = stream
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		log.append(3)
		go func() { done <- follower.Run(ctx) }()
		<-follower.Ready()
		synctest.Wait()
		f(t, log, e, follower, stream, errs)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestFollowerIsReadyAfterTheFirstCompleteView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, e := &memoryLog{err: errors.New("away")}, &edge{}
		log.append(2*page + 1)
		var told int
		f := NewFollower(FollowerConfig{Log: log, Apply: e.apply, OnError: func(error) { told++ }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		time.Sleep(10 * time.Second)
		select {
		case <-f.Ready():
			t.Error("ready without a view")
		default:
		}
		synctest.Wait()
		if told != 1 || !f.Status().LogContact.IsZero() {
			t.Errorf("told %d times, contact %v", told, f.Status().LogContact)
		}
		log.change(func(l *memoryLog) { l.err = nil })
		<-f.Ready()
		if !e.has(1, 2*page+1) || f.Status().Applied != 2*page+1 {
			t.Errorf("ready without a complete view: %+v", f.Status())
		}
		cancel()
		<-done
	})
}

func TestFollowerWithoutStreamPollsAndWakes(t *testing.T) {
	follow(t, false, func(t *testing.T, log *memoryLog, e *edge, f *Follower, _ scripted, _ *[]error) {
		log.append(1)
		time.Sleep(pollEvery)
		synctest.Wait()
		if !e.has(1, 4) {
			t.Error("not applied after a poll")
		}
		began := time.Now()
		log.append(1)
		f.Wake()
		synctest.Wait()
		if !e.has(1, 5) || time.Since(began) != 0 {
			t.Error("not applied at once when woken")
		}
		reads := log.reads.Load()
		time.Sleep(10*time.Second + time.Millisecond)
		if n := log.reads.Load() - reads; n != 40 {
			t.Errorf("%d reads in 10 s, want 40", n)
		}
	})
}

func TestFollowerAppliesFromTheStreamAtOnce(t *testing.T) {
	follow(t, true, func(t *testing.T, log *memoryLog, e *edge, f *Follower, stream scripted, _ *[]error) {
		reads := log.reads.Load()
		stream <- answer{seqs: []uint64{4, 5}}
		synctest.Wait()
		if !e.has(4, 5) || log.reads.Load() != reads {
			t.Error("not applied, or the log was asked")
		}
		if s := f.Status(); s.Applied != 5 || s.Gaps != 0 {
			t.Errorf("status %+v", s)
		}
		log.append(2)
		time.Sleep(10*time.Second + time.Millisecond)
		if n := log.reads.Load() - reads; n != 10 {
			t.Errorf("%d reads of the log in 10 s, want one a second", n)
		}
		if s := f.Status(); s.Rewinds != 0 || s.Applied != 5 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestFollowerReadsTheLogAtOnceWhenTheStreamSkips(t *testing.T) {
	for name, skip := range map[string]answer{
		"a jump": {seqs: []uint64{5}}, "an entry that cannot be read": {seqs: []uint64{4}, last: 5},
	} {
		t.Run(name, func(t *testing.T) {
			follow(t, true, func(t *testing.T, log *memoryLog, e *edge, f *Follower, stream scripted, _ *[]error) {
				log.append(2)
				began := time.Now()
				stream <- skip
				synctest.Wait()
				if !e.has(4, 5) || time.Since(began) != 0 {
					t.Error("the log was not read at once")
				}
				if s := f.Status(); s.Applied != 5 || s.Gaps != 1 {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}

func TestFollowerPollsFasterWhileTheStreamFails(t *testing.T) {
	follow(t, true, func(t *testing.T, log *memoryLog, e *edge, f *Follower, stream scripted, errs *[]error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for {
				select {
				case stream <- answer{err: errors.New("refused")}:
				case <-ctx.Done():
					return
				}
			}
		}()
		time.Sleep(5 * time.Second)
		log.append(1)
		time.Sleep(pollEvery)
		synctest.Wait()
		if !e.has(4, 4) {
			t.Error("a revocation waits for Redis")
		}
		if len(*errs) != 1 {
			t.Errorf("told of %d errors, want the first", len(*errs))
		}
		cancel()
		synctest.Wait()
		time.Sleep(5 * time.Second)
		reads := log.reads.Load()
		time.Sleep(10*time.Second + time.Millisecond)
		if n := log.reads.Load() - reads; n < 9 || n > 11 {
			t.Errorf("%d reads in 10 s after recovery, want 10", n)
		}
	})
}

func TestFollowerStartsOverWhenTheLogLostEntries(t *testing.T) {
	follow(t, true, func(t *testing.T, log *memoryLog, e *edge, f *Follower, stream scripted, _ *[]error) {
		stream <- answer{seqs: []uint64{4, 5, 6, 7}}
		log.change(func(l *memoryLog) { // restored from a backup, and written since
			l.entries, l.head = []oauth.Revocation{revocation(1), {Seq: 2, Level: oauth.LevelToken, ID: "after the restore"}}, 2
		})
		time.Sleep(verifyEvery)
		synctest.Wait()
		e.mu.Lock()
		applied := e.ids["after the restore"]
		e.mu.Unlock()
		if s := f.Status(); !applied || s.Applied != 2 || s.Rewinds != 1 {
			t.Errorf("applied %v, status %+v", applied, s)
		}
		stream <- answer{seqs: []uint64{3}}
		synctest.Wait()
		if s := f.Status(); s.Applied != 3 {
			t.Errorf("the stream is not followed after the restore: %+v", s)
		}
	})
}

func TestFollowerForgetsAForgedEndOfTheStream(t *testing.T) {
	follow(t, true, func(t *testing.T, log *memoryLog, e *edge, f *Follower, stream scripted, _ *[]error) {
		stream <- answer{last: 1 << 60}
		time.Sleep(verifyEvery)
		synctest.Wait()
		f.mu.Lock()
		seen := f.seen
		f.mu.Unlock()
		if seen != 3 {
			t.Errorf("reads the stream from %d on, want 3", seen)
		}
	})
}

// memoryStream is a stream without a server.
type memoryStream struct {
	ids    []uint64
	fail   error
	before func(seq uint64) // what happens just before an Add
}

func (s *memoryStream) Top(context.Context) (uint64, error) {
	return slices.Max(append(s.ids, 0)), s.fail
}

func (s *memoryStream) Add(_ context.Context, r oauth.Revocation) error {
	if s.before != nil {
		s.before(r.Seq)
	}
	if s.fail == nil && r.Seq <= slices.Max(append(s.ids, 0)) {
		return errors.New("equal or smaller")
	}
	if s.fail == nil {
		s.ids = append(s.ids, r.Seq)
	}
	return s.fail
}

func (s *memoryStream) Reset(context.Context) error { s.ids = nil; return s.fail }

func TestRelayNeverSkipsAnEntry(t *testing.T) {
	f := func(name string, log *memoryLog, s *memoryStream, want []uint64) {
		t.Run(name, func(t *testing.T) {
			r := NewRelay(RelayConfig{Log: log})
			r.stream = s
			for range 3 {
				_ = r.pass(t.Context()) // the next pass repairs it
			}
			if !slices.Equal(s.ids, want) {
				t.Errorf("stream %v, want %v", s.ids, want)
			}
		})
	}
	log := func(n int) *memoryLog { l := &memoryLog{}; l.append(n); return l }
	swept := log(5)
	swept.entries = slices.Delete(swept.entries, 1, 3)
	other := &memoryStream{}
	other.before = func(seq uint64) { // another relay is always a little faster
		if seq == 2 {
			other.ids = append(other.ids, 2, 3)
		}
	}
	once := &memoryStream{}
	once.before = func(seq uint64) {
		once.fail = nil
		if seq == 2 && len(once.ids) == 1 {
			once.fail = errors.New("timeout")
		}
	}
	once.ids = nil
	f("a new stream", log(3), &memoryStream{}, []uint64{1, 2, 3})
	f("a longer log", log(5), &memoryStream{ids: []uint64{1, 2, 3}}, []uint64{1, 2, 3, 4, 5})
	f("nothing to do", log(2), &memoryStream{ids: []uint64{1, 2}}, []uint64{1, 2})
	f("swept entries", swept, &memoryStream{}, []uint64{1, 4, 5})
	f("another relay", log(4), other, []uint64{1, 2, 3, 4})
	f("a stream of another history", log(2), &memoryStream{ids: []uint64{1, 2, 3, 900}}, []uint64{1, 2})
}

func TestRelayGoesOnWhereItFailed(t *testing.T) {
	log, s := &memoryLog{}, &memoryStream{}
	log.append(4)
	var told []error
	r := NewRelay(RelayConfig{Log: log})
	r.stream = s
	s.before = func(seq uint64) {
		if seq == 3 {
			s.fail = errors.New("timeout")
		}
	}
	for range 3 {
		if err := r.pass(t.Context()); err == nil {
			t.Error("a failed append is not reported")
		}
	}
	if !slices.Equal(s.ids, []uint64{1, 2}) {
		t.Errorf("stream %v: an entry was skipped", s.ids)
	}
	s.before, s.fail = nil, nil
	if err := r.pass(t.Context()); err != nil || !slices.Equal(s.ids, []uint64{1, 2, 3, 4}) || r.Relayed() != 4 {
		t.Errorf("stream %v, %v, relayed %d, told %v", s.ids, err, r.Relayed(), told)
	}
}

func TestRelayBeginsALongLogNearItsEnd(t *testing.T) {
	log, s := &memoryLog{}, &memoryStream{}
	log.append(streamLength + 2500)
	r := NewRelay(RelayConfig{Log: log})
	r.stream = s
	if err := r.pass(t.Context()); err != nil || len(s.ids) != streamLength || s.ids[0] != 2501 {
		t.Errorf("%d entries, %v; want the last %d", len(s.ids), err, streamLength)
	}
}

func TestViewIsCurrentWhenTheLogWasReadSinceTheLastWake(t *testing.T) {
	follow(t, false, func(t *testing.T, log *memoryLog, e *edge, follower *Follower, _ scripted, _ *[]error) {
		if !follower.Current() {
			t.Error("not current after the first read")
		}
		log.append(1)
		follower.Wake()
		if follower.Current() && !e.has(4, 4) {
			t.Error("current without what Wake told of")
		}
		synctest.Wait()
		if !follower.Current() || !e.has(4, 4) {
			t.Error("not current after the read")
		}
		log.change(func(l *memoryLog) { l.err = errors.New("away") })
		follower.Wake()
		synctest.Wait()
		if follower.Current() {
			t.Error("current although the read after Wake failed")
		}
		log.change(func(l *memoryLog) { l.err = nil })
		time.Sleep(2 * pollEvery)
		if !follower.Current() {
			t.Error("not current again")
		}
		log.change(func(l *memoryLog) { l.err = errors.New("away") })
		time.Sleep(viewAge + pollEvery)
		if follower.Current() {
			t.Error("current although the log was not read for long")
		}
		log.change(func(l *memoryLog) { l.err = nil })
	})
}
