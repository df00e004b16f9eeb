package ratelimit

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	queueSize = 4096
	batchSize = 64
	// urgentWorkers send what requests wait for; one more sends refills.
	urgentWorkers = 3
	// linger is how long a refill waits for company: it was asked for early,
	// and many keys in one round trip cost little more than one.
	linger = time.Millisecond
	// callTimeout bounds one call of the store.
	callTimeout = 25 * time.Millisecond
)

var errDown = errors.New("the store is away")

// work is one bucket's ask on its way to a worker.
type work struct {
	sh     *shard
	b      *bucket
	single *single // an exact ask; nil for the bucket's lease
	// post only debits the debt.
	post bool
}

// single is an exact ask. grant is valid once done is closed and err is nil.
type single struct {
	answer
	grant Grant
}

// offer queues w without waiting.
func offer(queue chan work, w work) bool {
	select {
	case queue <- w:
		return true
	default:
		return false
	}
}

// ask queues b's next lease. Its shard is locked.
func (p *Plugin) ask(sh *shard, b *bucket, queue chan work, now int64) bool {
	if !offer(queue, work{sh: sh, b: b}) {
		return false
	}
	b.asking = true
	life, most, _ := b.pol.lease(p.nodes.Load())
	b.grow(life, most, now)
	return true
}

// runStore runs the workers and the watch until ctx ends, and waits for them.
func (p *Plugin) runStore(ctx context.Context) error {
	var wg sync.WaitGroup
	for range urgentWorkers {
		wg.Go(func() { p.serveUrgent(ctx) })
	}
	wg.Go(func() { p.serveRefills(ctx) })
	p.watch(ctx)
	wg.Wait()
	return nil
}

func (p *Plugin) serveUrgent(ctx context.Context) {
	s := newSender(p)
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-p.urgent:
			s.batch = append(s.batch[:0], w)
		}
		s.drain(p.urgent)
		s.drain(p.refills)
		s.send(ctx)
	}
}

func (p *Plugin) serveRefills(ctx context.Context) {
	s := newSender(p)
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-p.refills:
			s.batch = append(s.batch[:0], w)
		}
		timer.Reset(linger)
		for waiting := true; waiting && len(s.batch) < batchSize; {
			select {
			case w := <-p.refills:
				s.batch = append(s.batch, w)
			case <-timer.C:
				waiting = false
			}
		}
		s.send(ctx)
	}
}

// sender is one worker's room for a batch.
type sender struct {
	p     *Plugin
	batch []work
	asks  []StoreAsk
}

func newSender(p *Plugin) *sender {
	return &sender{p: p, batch: make([]work, 0, batchSize), asks: make([]StoreAsk, 0, batchSize)}
}

// drain takes more of queue without waiting.
func (s *sender) drain(queue chan work) {
	for len(s.batch) < batchSize {
		select {
		case w := <-queue:
			s.batch = append(s.batch, w)
		default:
			return
		}
	}
}

// send puts the batch to the store in one call and settles every ask.
func (s *sender) send(ctx context.Context) {
	s.asks = s.asks[:0]
	sent := s.p.elapsed() // before sending: tokens die no later than promised
	for i := range s.batch {
		s.asks = append(s.asks, s.p.prepare(&s.batch[i], sent))
	}
	err := errDown
	if !s.p.health.down() || s.p.health.trial.Load() {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err = s.p.store.Ask(call, s.asks)
		cancel()
		s.p.calls.called(s.asks, err)
		if ctx.Err() == nil {
			s.p.health.report(err)
		}
	}
	for i := range s.batch {
		if err != nil {
			s.asks[i].Err = err
		}
		s.p.settle(&s.batch[i], &s.asks[i], sent)
	}
}

// prepare makes the store's ask of w, with all that is wanted by now.
func (p *Plugin) prepare(w *work, now int64) StoreAsk {
	b := w.b
	w.sh.mu.Lock()
	defer w.sh.mu.Unlock()
	if b.name == "" {
		b.name = bucketName(b.pol.name, &b.subject)
	}
	pol, debt := b.pol, b.debt
	b.debt = 0 // settle notes it again if the ask fails
	a := StoreAsk{Bucket: b.name, Replica: p.replica, Limit: pol.limit}
	a.Ask = Ask{Want: pol.cost, Least: pol.cost, Debt: debt}
	if w.single != nil {
		return a
	}
	if w.post {
		a.Ask.Want = 0
		return a
	}
	held := b.held(now)
	life, most, capped := pol.lease(p.nodes.Load())
	a.Ask.Need = max(0, b.waiting-held)
	a.Ask.Want = max(b.want, a.Ask.Need)
	if capped {
		// What requests wait for is not held: they spend it when it arrives.
		a.Ask.Want = max(pol.cost, a.Ask.Need, min(a.Ask.Want, most-held))
	}
	a.Life = time.Duration(life)
	return a
}

// settle enters the answer to w into its bucket and wakes who waits for it.
func (p *Plugin) settle(w *work, a *StoreAsk, sent int64) {
	b := w.b
	w.sh.mu.Lock()
	defer w.sh.mu.Unlock()
	if a.Err != nil {
		b.addDebt(p, a.Ask.Debt)
	} else if a.Ask.Want > 0 {
		b.learn(a, sent, p.elapsed(), p.nodes.Load())
	}
	if w.single != nil {
		w.single.grant, w.single.err = a.Grant, a.Err
		close(w.single.done)
		return
	}
	b.asking = false
	if b.answered != nil {
		b.answered.err = a.Err
		close(b.answered.done)
		b.answered = nil
	}
}

// learn notes what the store said.
func (b *bucket) learn(a *StoreAsk, sent, now, nodes int64) {
	b.cut, b.tat = false, 0
	b.heard, b.free, b.resetAt = sent, a.Grant.Free, now+a.Grant.Reset*1000
	switch {
	case a.Grant.Tokens == 0:
		b.denyUntil = now + a.Grant.Retry*1000
		if a.Life > 0 {
			b.denyUntil = max(b.denyUntil, now+b.pol.denyFloor)
		}
	case a.Life > 0:
		l := lease{tokens: a.Grant.Tokens, granted: a.Grant.Tokens, since: now, until: sent + int64(a.Life)}
		if _, most, capped := b.pol.lease(nodes); capped {
			// Requests that gave up meanwhile leave more than may be held.
			l.tokens = min(l.tokens, b.waiting+max(0, most-b.held(now)))
		}
		b.denyUntil = 0
		if b.now.tokens > 0 && now < b.now.until {
			b.later = l
		} else {
			b.shrink()
			b.now = l
		}
	}
}
