package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// load is one run: a closed loop, in which each connection sends its next
// request when the answer to the last one is complete.
type load struct {
	port        int
	connections int
	requests    *supply
	// warm and measure bound a run by time, but for at least one answer a
	// connection; total > 0 bounds it by requests.
	warm, measure time.Duration
	total         int
	// mark is called when the measured part begins and when it ends.
	mark func() error
	// patience is how long the run waits for any answer before it gives up;
	// 0 is 20 s, enough for a machine that is busy with other things.
	patience time.Duration
}

// tally is what a run saw in its measured part.
type tally struct {
	requests int
	errors   int
	sample   error // the first of the errors
	elapsed  time.Duration
	latency  latencies
	atOrigin int // requests that the origin answered in the whole run
	answered int // good answers in the whole run
}

// client is the sending side of one connection.
type client struct {
	sent    time.Time
	waiting bool
}

// driver is the state of a run.
type driver struct {
	*wire
	load
	tally    tally
	begin    time.Time // of the measured part; zero while warming
	last     time.Time // of an answer
	open     int       // live connections
	waiting  int       // of those, waiting for an answer
	sent     int
	stopping bool // send nothing more
	ended    bool // the measured part is over
}

// drive does one run. An error means that it could not be done at all; failed
// requests are counted in the tally.
func (w *wire) drive(ctx context.Context, l load) (tally, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	d := &driver{wire: w, load: l}
	if d.patience == 0 {
		d.patience = 20 * time.Second
	}
	defer d.hangUp()
	served := w.served
	start := time.Now()
	d.last = start
	if l.warm == 0 {
		if err := d.measureFrom(start); err != nil {
			return d.tally, err
		}
	}
	for range l.connections {
		p, err := w.connect(l.port, &client{})
		if err != nil {
			return d.tally, fmt.Errorf("connecting to the proxy: %w", err)
		}
		d.open++
		d.send(p, time.Now())
	}
	for {
		events, err := w.wait()
		if err != nil {
			return d.tally, err
		}
		if err := d.handle(events); err != nil {
			return d.tally, err
		}
		if ctx.Err() != nil {
			return d.tally, ctx.Err()
		}
		done, err := d.advance(start, time.Now())
		if done || err != nil {
			d.tally.atOrigin = w.served - served
			return d.tally, err
		}
	}
}

func (d *driver) handle(events []unix.EpollEvent) error {
	for i := range events {
		p := d.peers[events[i].Fd]
		switch {
		case p == nil: // dropped by an earlier event of this batch
		case p.fd == d.listen:
			if err := d.accept(); err != nil {
				return err
			}
		case p.client == nil:
			d.serve(p)
		default:
			d.receive(p)
		}
	}
	return nil
}

// advance moves the run from warming to measuring to waiting for the last
// answers, and reports its end.
func (d *driver) advance(start, now time.Time) (done bool, err error) {
	silent := now.Sub(d.last) > d.patience
	switch {
	case d.stopping && d.waiting > 0 && !silent:
		return false, nil
	case d.stopping:
		if d.waiting > 0 {
			d.fail(fmt.Errorf("%d requests got no answer in %v", d.waiting, d.patience))
		}
		return true, d.measureTo(now)
	case d.open == 0 || silent:
		d.stopping = true
	case d.begin.IsZero():
		if now.Sub(start) >= d.warm {
			return false, d.measureFrom(now)
		}
	case d.total > 0:
		d.stopping = d.sent >= d.total
	case now.Sub(d.begin) >= d.measure && d.tally.requests >= d.connections:
		d.stopping = true
		return false, d.measureTo(now)
	}
	return false, nil
}

func (d *driver) measureFrom(now time.Time) error {
	d.tally = tally{answered: d.tally.answered, errors: d.tally.errors, sample: d.tally.sample}
	d.begin = now
	return d.mark()
}

// measureTo ends the measured part, once; a run that failed while it warmed has
// none.
func (d *driver) measureTo(now time.Time) error {
	if d.ended || d.begin.IsZero() {
		return nil
	}
	d.ended = true
	d.tally.elapsed = now.Sub(d.begin)
	return d.mark()
}

// send writes the next request, unless the run is to end.
func (d *driver) send(p *peer, now time.Time) {
	if d.stopping || d.total > 0 && d.sent >= d.total {
		return
	}
	r := d.requests.next()
	if r == nil {
		d.stopping = true
		d.fail(errors.New("the supply of fresh tokens ran out"))
		return
	}
	switch n, err := unix.Write(p.fd, r); {
	case err != nil:
		d.lose(p, fmt.Errorf("sending: %w", err))
		return
	case n < len(r):
		d.lose(p, errors.New("the proxy takes no whole request"))
		return
	}
	d.sent++
	d.waiting++
	p.client.sent, p.client.waiting = now, true
}

// receive reads from a client's connection; a whole answer is followed by the
// next request.
func (d *driver) receive(p *peer) {
	n, err := unix.Read(p.fd, p.buf[p.n:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	if err != nil {
		d.lose(p, fmt.Errorf("receiving: %w", err))
		return
	}
	if n == 0 {
		d.lose(p, errors.New("the proxy closed a connection"))
		return
	}
	p.n += n
	size, err := readAnswer(p.buf[:p.n], originContent)
	switch {
	case err != nil:
		d.lose(p, err)
	case size == 0 && p.n == len(p.buf):
		d.lose(p, errors.New("answer does not end"))
	case size == 0:
	case size < p.n || !p.client.waiting:
		d.lose(p, errors.New("the proxy sent more than the answer"))
	default:
		d.complete(p)
	}
}

func (d *driver) complete(p *peer) {
	now := time.Now()
	p.n = 0
	p.client.waiting = false
	d.waiting--
	d.last = now
	d.tally.answered++
	// After the end of a timed part the last answers only have to be good.
	if !d.ended {
		d.tally.requests++
		d.tally.latency.add(now.Sub(p.client.sent))
	}
	d.send(p, now)
}

func (d *driver) lose(p *peer, why error) {
	if p.client.waiting {
		d.waiting--
	}
	d.open--
	d.drop(p)
	d.fail(why)
}

func (d *driver) fail(why error) {
	d.tally.errors++
	if d.tally.sample == nil {
		d.tally.sample = why
	}
}

// hangUp closes what is left of the clients' connections.
func (d *driver) hangUp() {
	for _, p := range d.peers {
		if p != nil && p.client != nil {
			d.drop(p)
		}
	}
}
