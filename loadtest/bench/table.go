package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// measure is one subject in one round.
type measure struct {
	cost           float64 // processor ns per request of the proxy
	rate           float64 // requests/s
	busy, loadBusy float64 // processor time per wall time, of the proxy and of the load thread
	stolen         float64 // by the host from the proxy's core, per wall time
	p50, p99       time.Duration
	memory         int // bytes
	errors         int
	sample         error // the first of the errors
}

// row is a subject with its measures, one for each round.
type row struct {
	subject
	fields  int // header fields that the origin saw
	rounds  []measure
	remarks []string // what else was counted
}

// errors returns the errors of all rounds and the first one.
func (r row) errors() (n int, sample error) {
	for _, m := range r.rounds {
		n += m.errors
		if sample == nil {
			sample = m.sample
		}
	}
	return n, sample
}

// median of one figure over the rounds.
func (r row) median(of func(measure) float64) float64 {
	var all []float64
	for _, m := range r.rounds {
		all = append(all, of(m))
	}
	return median(all)
}

// median of an even number of values is the mean of the middle two; of none, 0.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// ratios divides the cost of each round by the yardstick's of the same round.
func (r row) ratios(base row) []float64 {
	var all []float64
	for i, m := range r.rounds {
		if i < len(base.rounds) && base.rounds[i].cost > 0 {
			all = append(all, m.cost/base.rounds[i].cost)
		}
	}
	return all
}

// table renders the rows in Markdown, for the terminal and the README.
func table(rows []row) string {
	bases := map[string]row{}
	for _, r := range rows {
		bases[r.name] = r
	}
	var b strings.Builder
	b.WriteString("| proxy | processor µs/request | ÷ nginx alike: median (min–max) | requests/s | p50 | p99 | memory | core busy | core stolen | errors |\n")
	b.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, r := range rows {
		ratio := "not measured"
		if all := r.ratios(bases[cmp.Or(r.base, yardstick)]); len(all) > 0 {
			ratio = fmt.Sprintf("%.2f (%.2f–%.2f)", median(all), slices.Min(all), slices.Max(all))
		}
		errors, _ := r.errors()
		fmt.Fprintf(&b, "| %s | %.1f | %s | %.0f | %.2f ms | %.2f ms | %.1f MiB | %.0f %% | %.0f %% | %d |\n",
			r.title,
			r.median(func(m measure) float64 { return m.cost / 1e3 }),
			ratio,
			r.median(func(m measure) float64 { return m.rate }),
			r.median(func(m measure) float64 { return m.p50.Seconds() * 1e3 }),
			r.median(func(m measure) float64 { return m.p99.Seconds() * 1e3 }),
			r.median(func(m measure) float64 { return float64(m.memory) / (1 << 20) }),
			r.median(func(m measure) float64 { return m.busy * 100 }),
			r.median(func(m measure) float64 { return m.stolen * 100 }),
			errors)
	}
	for _, r := range rows {
		for _, remark := range r.remarks {
			fmt.Fprintf(&b, "\n- %s: %s", r.title, remark)
		}
	}
	b.WriteString("\n")
	return b.String()
}

// scriptCalls sums the calls of scripts and functions in redis-server's
// commandstats.
func scriptCalls(info string) (float64, error) {
	sum := 0.0
	for line := range strings.Lines(info) {
		name, rest, _ := strings.Cut(line, ":calls=")
		switch strings.TrimSuffix(name, "_ro") {
		case "cmdstat_eval", "cmdstat_evalsha", "cmdstat_fcall":
			calls, _, _ := strings.Cut(rest, ",")
			n, err := strconv.ParseFloat(calls, 64)
			if err != nil {
				return 0, fmt.Errorf("redis-server's statistics: %w", err)
			}
			sum += n
		}
	}
	return sum, nil
}

// callsPerRequest reads the summary of strace -c.
func callsPerRequest(summary string, requests int) (string, error) {
	type call struct {
		name string
		n    int
	}
	var calls []call
	sum := 0
	for line := range strings.Lines(summary) {
		words := strings.Fields(line)
		if len(words) < 5 || words[len(words)-1] == "total" {
			continue
		}
		n, err := strconv.Atoi(words[3]) // % time, seconds, usecs/call, calls, errors if any, name
		if err != nil {
			continue // a heading or a rule
		}
		calls = append(calls, call{words[len(words)-1], n})
		sum += n
	}
	if sum == 0 {
		return "", fmt.Errorf("strace has no summary: %q", summary)
	}
	slices.SortStableFunc(calls, func(a, b call) int { return b.n - a.n })
	var often []string
	for _, c := range calls {
		if per := float64(c.n) / float64(requests); per >= 0.05 {
			often = append(often, fmt.Sprintf("%s %.2f", c.name, per))
		}
	}
	return fmt.Sprintf("%.2f (%s)", float64(sum)/float64(requests), strings.Join(often, ", ")), nil
}

// replaceSection puts body between the two marker lines of a section.
func replaceSection(text, section, body string) (string, error) {
	begin, end := "<!-- "+section+":begin -->\n", "<!-- "+section+":end -->"
	before, rest, found := strings.Cut(text, begin)
	if !found {
		return "", fmt.Errorf("no line %q", strings.TrimSpace(begin))
	}
	_, after, found := strings.Cut(rest, end)
	if !found {
		return "", fmt.Errorf("no line %q after its beginning", end)
	}
	return before + begin + body + end + after, nil
}

// commas joins numbers as lists of processes are written.
func commas(numbers []int) string {
	var words []string
	for _, n := range numbers {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ",")
}
