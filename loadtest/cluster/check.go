package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// checkTimeout is generous: what Prometheus knows is scrapes old.
const checkTimeout = 90 * time.Second

// query is one query of the board.
type query struct{ panel, expr string }

// check sends traffic until every query of the board is answered with data and
// every rule was evaluated without an error.
func check(ctx context.Context, topo *topology, root string, out io.Writer) error {
	queries, err := boardQueries(filepath.Join(root, "configs", "grafana", "dashboards", "gatehouse.json"))
	if err != nil {
		return err
	}
	calls, err := newTraffic(ctx, topo)
	if err != nil {
		return err
	}
	defer calls.client.CloseIdleConnections()
	if err := calls.registered(ctx); err != nil {
		return err
	}
	for end := time.Now().Add(checkTimeout); ; {
		if err := calls.round(ctx); err != nil {
			return err
		}
		err := errors.Join(unanswered(ctx, topo.prometheus, queries), rulesWork(ctx, topo.prometheus))
		if err == nil {
			fmt.Fprintf(out, "%d queries of the board are answered with data, all rules were evaluated\n", len(queries))
			return nil
		}
		if time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-topo.failed:
			return err
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// boardQueries reads the board's queries with its variables put in.
func boardQueries(path string) (list []query, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	variables := strings.NewReplacer("$__rate_interval", "30s", "$route", ".*")
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			list = append(list, query{p.Title, variables.Replace(target.Expr)})
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s has no queries", path)
	}
	return list, nil
}

// unanswered is an error for each query without data.
func unanswered(ctx context.Context, prometheus string, queries []query) error {
	var errs []error
	for _, q := range queries {
		var answer struct {
			Status, Error string
			Data          struct {
				Result []struct{ Value [2]any }
			}
		}
		if err := ask(ctx, prometheus+"/api/v1/query?query="+url.QueryEscape(q.expr), &answer); err != nil {
			return err
		}
		data := false
		for _, r := range answer.Data.Result {
			text, _ := r.Value[1].(string)
			v, err := strconv.ParseFloat(text, 64)
			data = data || err == nil && !math.IsNaN(v)
		}
		if answer.Status != "success" || !data {
			errs = append(errs, fmt.Errorf("panel %q: no data for %s %s", q.panel, q.expr, answer.Error))
		}
	}
	return errors.Join(errs...)
}

// rulesWork is an error for each rule that could not be evaluated, or was not
// yet.
func rulesWork(ctx context.Context, prometheus string) error {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := ask(ctx, prometheus+"/api/v1/rules", &answer); err != nil {
		return err
	}
	var errs []error
	n := 0
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health != "ok" {
				errs = append(errs, fmt.Errorf("rule %s is %s %s", r.Name, r.Health, r.LastError))
			}
		}
	}
	if n == 0 {
		errs = append(errs, errors.New("prometheus knows no rules"))
	}
	return errors.Join(errs...)
}

func ask(ctx context.Context, target string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("prometheus: %s: %w", resp.Status, err)
	}
	return nil
}
