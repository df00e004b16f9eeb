package sqlstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// qualified names the columns of a list as those of a table.
func qualified(table, columns string) string {
	list := strings.Split(columns, ",")
	for i, column := range list {
		list[i] = table + "." + strings.TrimSpace(column)
	}
	return strings.Join(list, ", ")
}

// micros is how a time is stored; the zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// list is how strings are stored: a JSON array.
func list(values []string) string {
	if len(values) == 0 {
		return "[]"
	}
	text, err := json.Marshal(values)
	if err != nil {
		panic(err) // no slice of strings fails to encode
	}
	return string(text)
}

// document is how a value that no query looks into is stored: as JSON.
func document(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // settings are strings, numbers, lists of them and the like
	}
	return string(text)
}

// The types below scan a column into the field that they point to.

type timeColumn struct{ to *time.Time }

func (c timeColumn) Scan(src any) error {
	n, ok := src.(int64)
	if !ok {
		return fmt.Errorf("a time is stored as %T", src)
	}
	*c.to = time.Time{}
	if n != 0 {
		*c.to = time.UnixMicro(n).UTC()
	}
	return nil
}

type boolColumn struct{ to *bool }

func (c boolColumn) Scan(src any) error {
	n, ok := src.(int64)
	if !ok {
		return fmt.Errorf("a switch is stored as %T", src)
	}
	*c.to = n != 0
	return nil
}

type listColumn struct{ to *[]string }

func (c listColumn) Scan(src any) error {
	var text []byte
	switch src := src.(type) {
	case string:
		text = []byte(src)
	case []byte:
		text = src
	default:
		return fmt.Errorf("a list is stored as %T", src)
	}
	*c.to = nil
	if string(text) == "[]" {
		return nil
	}
	if plain, ok := plainList(text); ok {
		*c.to = plain
		return nil
	}
	return json.Unmarshal(text, c.to)
}

// plainList reads what list wrote of strings without escapes, as those of most
// rows are.
func plainList(text []byte) (values []string, ok bool) {
	inner, begins := bytes.CutPrefix(text, []byte(`["`))
	inner, ends := bytes.CutSuffix(inner, []byte(`"]`))
	if !begins || !ends || bytes.IndexByte(inner, '\\') >= 0 {
		return nil, false
	}
	values = strings.Split(string(inner), `","`)
	return values, !slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, `"`) })
}

type documentColumn struct{ to any }

func (c documentColumn) Scan(src any) error {
	switch src := src.(type) {
	case string:
		return json.Unmarshal([]byte(src), c.to)
	case []byte:
		return json.Unmarshal(src, c.to)
	}
	return fmt.Errorf("a document is stored as %T", src)
}

type digestColumn struct{ to *store.Digest }

func (c digestColumn) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok || len(b) != len(c.to) {
		return fmt.Errorf("a digest is stored as %T of %d bytes", src, len(b))
	}
	copy(c.to[:], b)
	return nil
}

// hashColumn is a digest that may be missing.
type hashColumn struct{ to *store.Digest }

func (c hashColumn) Scan(src any) error {
	if src == nil {
		*c.to = store.Digest{}
		return nil
	}
	return digestColumn(c).Scan(src)
}
