package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// list shows entries as a table with the named columns, or as JSON.
func (o *operator) list(entries []object, columns ...string) error {
	if o.format == "json" {
		if entries == nil {
			entries = []object{}
		}
		return o.json(entries)
	}
	w := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(strings.Join(columns, "\t")))
	for _, entry := range entries {
		cells := make([]string, len(columns))
		for i, column := range columns {
			cells[i] = cell(entry[column])
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// one shows an object as lines of name and value, first those named, or as
// JSON.
func (o *operator) one(v object, first ...string) error {
	if o.format == "json" {
		return o.json(v)
	}
	w := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	names := slices.Clone(first)
	for _, name := range slices.Sorted(maps.Keys(v)) {
		if !slices.Contains(first, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if v[name] != nil {
			fmt.Fprintf(w, "%s\t%s\n", name, cell(v[name]))
		}
	}
	return w.Flush()
}

// did says what was done, or nothing for those who read JSON.
func (o *operator) did(format string, args ...any) error {
	if o.format == "json" {
		return nil
	}
	_, err := fmt.Fprintf(o.out, format+"\n", args...)
	return err
}

func (o *operator) json(v any) error { return writeJSON(o.out, v) }

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// cell is a value for the terminal. What others chose, such as a user agent,
// must not move the cursor.
func cell(v any) string {
	var s string
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		s = v
	case bool:
		return map[bool]string{true: "yes", false: "no"}[v]
	case []any:
		parts := make([]string, len(v))
		for i, part := range v {
			parts[i] = cell(part)
		}
		s = strings.Join(parts, " ")
	case float64:
		s = fmt.Sprint(v)
		if v == float64(int64(v)) {
			s = fmt.Sprint(int64(v))
		}
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			return "?"
		}
		s = string(raw)
	}
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
