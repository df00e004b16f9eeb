package ldap

import (
	"context"
	"errors"
	"fmt"
	"time"

	goldap "github.com/go-ldap/ldap/v3"
)

// maxIdle is how long a connection is kept that nobody needs: shorter than
// servers and what stands before them wait.
const maxIdle = 30 * time.Second

// kept is a connection that searches as bind_dn, and waits to be used again.
type kept struct {
	conn  *goldap.Conn
	since time.Time
}

// with runs do over a connection that searches as bind_dn, one that was used
// before or a new one. What a used one cannot carry any more is tried once more
// over a new one: servers and firewalls close what is idle without a word. do
// tells whether it left the connection as it was.
func (d *Directory) with(ctx context.Context, do func(conn *goldap.Conn) (clean bool, err error)) error {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return fmt.Errorf("wait for a connection to the directory: %w", ctx.Err())
	}
	conn, used := d.take(), true
	for {
		if conn == nil {
			var err error
			if conn, err = d.connect(ctx); err != nil {
				return err
			}
			used = false
		}
		// The library's calls know no context; closing ends them.
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		clean, err := do(conn)
		lost := err != nil && (conn.IsClosing() || goldap.IsErrorWithCode(err, goldap.ErrorNetwork))
		if stop() && !lost && (clean || d.bind(conn) == nil) {
			d.keep(conn)
			return err
		}
		_ = conn.Close()
		if !lost || !used || ctx.Err() != nil {
			return err
		}
		conn = nil
	}
}

// take returns a connection that was used before, nil where there is none.
func (d *Directory) take() *goldap.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.idle) > 0 {
		last := d.idle[len(d.idle)-1]
		d.idle = d.idle[:len(d.idle)-1]
		if !last.conn.IsClosing() && time.Since(last.since) < maxIdle {
			return last.conn
		}
		_ = last.conn.Close()
	}
	return nil
}

// keep takes a connection back. There are never more than slots.
func (d *Directory) keep(conn *goldap.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = conn.Close()
		return
	}
	d.idle = append(d.idle, kept{conn, time.Now()})
}

// bind makes the connection that of the account that searches, or nobody's.
func (d *Directory) bind(conn *goldap.Conn) error {
	if d.BindDN == "" {
		return conn.UnauthenticatedBind("")
	}
	return conn.Bind(d.BindDN, d.BindPassword)
}

// Close closes the connections that wait; those in use are closed when they are
// done.
func (d *Directory) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	var problems []error
	for _, k := range d.idle {
		problems = append(problems, k.conn.Close())
	}
	d.idle = nil
	return errors.Join(problems...)
}
