package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/store"
)

func auditCommand() *cobra.Command {
	return operating("audit", "The audit log of the authorization server", auditList, auditExport, auditVerify)
}

// auditLine is an event as the admin API and exports show it.
type auditLine struct {
	Seq     int64     `json:"seq"`
	Time    time.Time `json:"time"`
	Action  string    `json:"action"`
	Outcome string    `json:"outcome"`
	Actor   string    `json:"actor"`
	Client  string    `json:"client,omitempty"`
	Subject string    `json:"subject,omitempty"`
	Grant   string    `json:"grant,omitempty"`
	Session string    `json:"session,omitempty"`
	IP      string    `json:"ip,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Hash    string    `json:"hash,omitempty"`
}

func (l auditLine) event() (store.AuditEvent, error) {
	e := store.AuditEvent{Seq: l.Seq, Time: l.Time, Action: l.Action, Outcome: l.Outcome, Actor: l.Actor, Client: l.Client,
		Subject: l.Subject, Grant: l.Grant, Session: l.Session, IP: l.IP, Reason: l.Reason}
	hash, err := hex.DecodeString(l.Hash)
	if err != nil || l.Hash != "" && len(hash) != len(e.Hash) {
		return e, fmt.Errorf("event %d: its hash is not one", l.Seq)
	}
	copy(e.Hash[:], hash)
	return e, nil
}

// auditPage is a part of the log, with the links that hold it.
type auditPage struct {
	Events     []auditLine
	Base, Head string
}

// auditPages reads the log from after on, page by page.
func (o *operator) auditPages(ctx context.Context, after int64, each func(auditPage) error) error {
	for {
		var page auditPage
		if err := o.call(ctx, http.MethodGet, fmt.Sprintf("audit?limit=1000&after=%d", after), nil, &page); err != nil {
			return err
		}
		if err := each(page); err != nil {
			return err
		}
		if len(page.Events) == 0 {
			return nil
		}
		after = page.Events[len(page.Events)-1].Seq
	}
}

func auditList(o *operator) *cobra.Command {
	var action, client, user, grant, since string
	var limit int
	c := leaf("list", "List the newest events, the oldest of them first",
		"gatehouse audit list\ngatehouse audit list --action login.failed --since 1h\ngatehouse audit list --user alice -o json", func(ctx context.Context, _ []string) error {
			q := url.Values{"order": {"newest"}, "limit": {strconv.Itoa(limit)}, "action": {action}, "client": {client}, "grant": {grant}}
			if user != "" {
				subject, err := o.subject(ctx, user)
				if err != nil {
					return err
				}
				q.Set("subject", subject)
			}
			if since != "" {
				from, err := moment(since, time.Now())
				if err != nil {
					return usageError{fmt.Errorf("--since %s: %w", since, err)}
				}
				q.Set("from", from.Format(time.RFC3339Nano))
			}
			var found struct{ Events []object }
			if err := o.call(ctx, http.MethodGet, "audit?"+q.Encode(), nil, &found); err != nil {
				return err
			}
			for i, j := 0, len(found.Events)-1; i < j; i, j = i+1, j-1 {
				found.Events[i], found.Events[j] = found.Events[j], found.Events[i]
			}
			return o.list(found.Events, "seq", "time", "action", "outcome", "actor", "client", "subject", "grant", "ip", "reason")
		})
	c.Flags().StringVar(&action, "action", "", "only this action, such as login.failed")
	c.Flags().StringVar(&client, "client", "", "only about this client")
	c.Flags().StringVar(&user, "user", "", "only about this user")
	c.Flags().StringVar(&grant, "grant", "", "only about this grant")
	c.Flags().StringVar(&since, "since", "", "a time (2026-01-02T15:04:05Z), or how long ago (1h)")
	c.Flags().IntVar(&limit, "limit", 100, "how many, at most 1000")
	return c
}

// moment reads a time, or how long before now it was.
func moment(s string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(s); err == nil {
		return now.Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, errors.New("want a time such as 2026-01-02T15:04:05Z, or a duration such as 24h")
	}
	return t, nil
}

// exportHead is the first line of an export.
type exportHead struct {
	Format string `json:"format"`
	Base   string `json:"base"`
	Head   string `json:"head"`
}

const exportFormat = "gatehouse-audit-1"

func auditExport(o *operator) *cobra.Command {
	c := leaf("export", "Write the whole log as JSON lines, which `audit verify --file` proves without the server",
		"gatehouse audit export > audit.jsonl", func(ctx context.Context, _ []string) error {
			w := bufio.NewWriter(o.out)
			lines := json.NewEncoder(w)
			lines.SetEscapeHTML(false)
			first := true
			var end store.Link
			err := o.auditPages(ctx, 0, func(p auditPage) error {
				if first {
					first = false
					var err error
					if end, err = store.ParseLink(p.Head); err != nil {
						return fmt.Errorf("the log's head: %w", err)
					}
					if err := lines.Encode(exportHead{exportFormat, p.Base, p.Head}); err != nil {
						return err
					}
				}
				for _, e := range p.Events {
					if e.Seq > end.Seq { // after the head that the first line names
						return nil
					}
					if err := lines.Encode(e); err != nil {
						return err
					}
				}
				return nil
			})
			return errors.Join(err, w.Flush())
		})
	return c
}

func auditVerify(o *operator) *cobra.Command {
	var file, kept string
	var c *cobra.Command
	c = leaf("verify", "Prove that no event was changed, removed or inserted; prints the head, to be kept elsewhere for the next time",
		"gatehouse audit verify\ngatehouse audit verify --head 1234:9f86d0…\ngatehouse audit verify --file audit.jsonl", func(ctx context.Context, _ []string) error {
			var links []store.Link
			if kept != "" {
				link, err := store.ParseLink(kept)
				if err != nil {
					return usageError{fmt.Errorf("--head %w", err)}
				}
				links = append(links, link)
			}
			proof := &auditProof{kept: links}
			var err error
			if file != "" {
				err = proof.file(c, file)
			} else {
				err = o.auditPages(ctx, 0, proof.page)
			}
			if err == nil {
				err = proof.end()
			}
			if err != nil {
				return err
			}
			return o.one(object{"verified": true, "events": float64(proof.verifier.Events()), "head": proof.verifier.Head().String()}, "verified", "events", "head")
		})
	c.Flags().StringVar(&file, "file", "", "an export, - for standard input; else the running server's log")
	c.Flags().StringVar(&kept, "head", "", "a head that was printed before: finds out when events after it, or it, are gone")
	return c
}

// auditProof feeds a verifier.
type auditProof struct {
	kept     []store.Link
	verifier *audit.Verifier
}

func (p *auditProof) begin(base, head string) error {
	from, err := store.ParseLink(base)
	if err != nil {
		return fmt.Errorf("the log's base: %w", err)
	}
	to, err := store.ParseLink(head)
	if err != nil {
		return fmt.Errorf("the log's head: %w", err)
	}
	p.verifier, err = audit.NewVerifier(from, append(p.kept, to)...)
	return err
}

func (p *auditProof) page(page auditPage) error {
	if p.verifier == nil {
		if err := p.begin(page.Base, page.Head); err != nil {
			return err
		}
	}
	for _, line := range page.Events {
		if err := p.next(line); err != nil {
			return err
		}
	}
	return nil
}

func (p *auditProof) next(line auditLine) error {
	e, err := line.event()
	if err != nil {
		return err
	}
	return p.verifier.Next(e)
}

func (p *auditProof) file(c *cobra.Command, path string) error {
	in := c.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return usageError{err}
		}
		defer f.Close()
		in = f
	}
	d := json.NewDecoder(in)
	var head exportHead
	if err := d.Decode(&head); err != nil || head.Format != exportFormat {
		return fmt.Errorf("%s is not an export of the audit log", path)
	}
	if err := p.begin(head.Base, head.Head); err != nil {
		return err
	}
	for {
		var line auditLine
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s: after event %d: %w", path, p.verifier.Head().Seq, errors.New(strings.TrimPrefix(err.Error(), "json: ")))
		}
		if err := p.next(line); err != nil {
			return err
		}
	}
}

func (p *auditProof) end() error {
	if p.verifier == nil {
		return errors.New("the log is empty, without a beginning")
	}
	return p.verifier.End()
}
