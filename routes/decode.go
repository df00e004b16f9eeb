package routes

import (
	"encoding"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decoder fills Go values from nodes, strictly, and keeps the place of every
// value that it sets. It uses reflection: it runs when a file is loaded only.
type decoder struct {
	options  Options
	problems Problems
	places   map[any]place // by the address of what was decoded; see at
}

// place is where a value stands. Its node is broken where it was not decoded.
type place struct {
	pos    Pos
	broken bool
}

// keyPlace is the place of a key in the map that stands at an address.
type keyPlace struct {
	address any
	key     string
}

func newDecoder(o Options) *decoder {
	return &decoder{options: o, places: map[any]place{}}
}

// decode fills what into points to.
func (d *decoder) decode(n *node, into any) {
	d.value(n, reflect.ValueOf(into).Elem(), "")
}

// Decode fills the struct that into points to, as strictly as the file itself
// is read: by `yaml` tags, unknown keys refused, all mistakes at once. The
// error is Problems. A zero Node changes nothing.
//
// It knows strings, booleans, numbers, time.Duration, structs, pointers,
// slices, maps with string keys, Node, Secret, and every type with
// UnmarshalText (Size, Percent, netip.Prefix). A field `Pos Pos` of a struct
// is set to the struct's place.
func (n Node) Decode(into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		panic("routes: Node.Decode needs a pointer")
	}
	if n.n == nil {
		return nil
	}
	d := newDecoder(Options{Dev: n.dev})
	d.value(n.n, v.Elem(), "")
	return d.problems.err()
}

// report adds a problem and returns false, the verdict of its callers.
func (d *decoder) report(pos Pos, format string, args ...any) bool {
	d.problems = append(d.problems, Problem{Pos: pos, Message: fmt.Sprintf(format, args...)})
	return false
}

var (
	typeNode       = reflect.TypeFor[Node]()
	typePos        = reflect.TypeFor[Pos]()
	typeSecret     = reflect.TypeFor[Secret]()
	typeDuration   = reflect.TypeFor[time.Duration]()
	typePrefix     = reflect.TypeFor[netip.Prefix]()
	typeText       = reflect.TypeFor[encoding.TextUnmarshaler]()
	typeRoute      = reflect.TypeFor[Route]()
	typeSecrets    = reflect.TypeFor[Secrets]()
	typeTLS        = reflect.TypeFor[TLS]()
	typeBreaker    = reflect.TypeFor[Breaker]()
	typeRateLimits = reflect.TypeFor[[]*RateLimit]()
)

// value decodes n into v and keeps its place. key is the word that messages
// start with. It reports whether v has the value of n; false after a problem of
// n itself, not of what is inside.
func (d *decoder) value(n *node, v reflect.Value, key string) bool {
	ok := d.shaped(n, v, key)
	if v.CanAddr() {
		d.places[v.Addr().Interface()] = place{n.pos, !ok}
	}
	return ok
}

func (d *decoder) shaped(n *node, v reflect.Value, key string) bool {
	// A pointer is never nil where its key is written, even after a problem.
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		v.Set(p)
		return d.value(n, p.Elem(), key)
	}
	if n.broken {
		return false
	}
	if v.Type() == typeNode {
		v.Set(reflect.ValueOf(Node{n, d.options.Dev}))
		return true
	}
	if n.kind == scalar && n.tag == "!!null" {
		return d.report(n.pos, "%shas no value; give one or remove the key", colon(key))
	}
	if n.kind == scalar || v.Type() == typeRateLimits || v.Type() == typeTLS && n.kind == sequence {
		if known, ok := d.shortForm(n, v, key); known {
			return ok
		}
	}
	if reflect.PointerTo(v.Type()).Implements(typeText) && v.CanAddr() {
		return d.text(n, v, key)
	}
	switch v.Kind() {
	case reflect.Struct:
		return d.object(n, v, key)
	case reflect.Slice:
		return d.list(n, v, key)
	case reflect.Map:
		return d.names(n, v, key)
	case reflect.Interface:
		v.Set(reflect.ValueOf(plainValue(n)))
		return true
	}
	return d.scalar(n, v, key)
}

// shortForm decodes the types that a word may stand for; known is false for all
// others.
func (d *decoder) shortForm(n *node, v reflect.Value, key string) (known, ok bool) {
	switch v.Type() {
	case typeTLS:
		t := v.Addr().Interface().(*TLS)
		t.Pos = n.pos
		if n.kind == sequence {
			return true, d.value(n, reflect.ValueOf(&t.Certificates).Elem(), key)
		}
		if n.value != "terminated" {
			return true, d.report(n.pos, "tls: wants {cert: FILE, key: FILE}, a list of these, or the word terminated")
		}
		t.Terminated = true
		return true, true
	case typeBreaker:
		if n.value != "off" {
			return true, d.report(n.pos, "breaker: wants a mapping or the word off")
		}
		v.Set(reflect.ValueOf(Breaker{off: true}))
		return true, true
	case typeSecrets:
		secrets := make(Secrets, 1)
		ok = d.value(n, reflect.ValueOf(&secrets[0]).Elem(), key)
		v.Set(reflect.ValueOf(secrets))
		return true, ok
	case typeRateLimits:
		d.rateLimits(n, v, key)
		return true, true
	}
	return false, false
}

// rateLimits decodes one limit or a list; each a mapping, or the name of a
// shared one.
func (d *decoder) rateLimits(n *node, v reflect.Value, key string) {
	items := n.items
	if n.kind != sequence {
		items = []*node{n}
	}
	limits := make([]*RateLimit, len(items))
	for i, item := range items {
		limits[i] = &RateLimit{Pos: item.pos}
		if item.kind == scalar && item.tag == "!!str" && !item.broken {
			limits[i].ref = item.value
			continue
		}
		d.value(item, reflect.ValueOf(limits[i]).Elem(), key)
	}
	v.Set(reflect.ValueOf(limits))
}

func (d *decoder) object(n *node, v reflect.Value, key string) bool {
	t := v.Type()
	fields := fieldsOf(t)
	if f := v.FieldByName("Pos"); f.IsValid() && f.Type() == typePos {
		f.Set(reflect.ValueOf(n.pos))
	}
	if n.kind != mapping {
		return d.report(n.pos, "%swants a mapping with some of the keys %s", colon(key), strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
	}
	for _, e := range n.entries {
		i, ok := fields[e.key]
		if ok && e.value.kind == mapping && unsupportedMappings[t] == e.key {
			d.report(e.value.pos, "%s: a mapping is not supported by this version", e.key)
			d.places[v.FieldByIndex(i).Addr().Interface()] = place{e.value.pos, true}
			continue
		}
		if ok {
			d.value(e.value, v.FieldByIndex(i), e.key)
			continue
		}
		if t == typeRoute && slices.Contains(d.options.Plugins, e.key) {
			r := v.Addr().Interface().(*Route)
			if r.settings == nil {
				r.settings = map[string]Node{}
			}
			r.settings[e.key] = Node{e.value, d.options.Dev}
			continue
		}
		d.unknown(e, t, fields)
	}
	return true
}

func (d *decoder) unknown(e entry, t reflect.Type, fields map[string][]int) {
	if slices.Contains(unsupported[t], e.key) {
		d.report(e.pos, "%s is not supported by this version", e.key)
		return
	}
	names := slices.Collect(maps.Keys(fields))
	if t == typeRoute {
		names = append(names, d.options.Plugins...)
	}
	p := Problem{Pos: e.pos, Message: fmt.Sprintf("unknown key %q", e.key), Suggestion: nearest(e.key, names)}
	if p.Suggestion == "" {
		p.Message += "; known here: " + strings.Join(slices.Sorted(slices.Values(names)), ", ")
	}
	d.problems = append(d.problems, p)
}

// fieldsOf maps the keys of a struct to its fields; those of an embedded struct
// are its own.
func fieldsOf(t reflect.Type) map[string][]int {
	fields := make(map[string][]int, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for name, inner := range fieldsOf(f.Type) {
				fields[name] = append([]int{i}, inner...)
			}
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		if f.IsExported() && name != "-" && f.Type != typePos {
			fields[name] = []int{i}
		}
	}
	return fields
}

func (d *decoder) list(n *node, v reflect.Value, key string) bool {
	if n.kind != sequence {
		hint := ""
		if n.kind == scalar && !n.dynamic() && v.Type().Elem() != typeSecret {
			hint = fmt.Sprintf("; write [%s]", n.value)
		}
		return d.report(n.pos, "%swants a list%s", colon(key), hint)
	}
	// Made once at its length, so that the addresses of items stay.
	v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
	for i, item := range n.items {
		d.value(item, v.Index(i), key)
	}
	return true
}

func (d *decoder) names(n *node, v reflect.Value, key string) bool {
	if n.kind != mapping {
		return d.report(n.pos, "%swants a mapping of names", colon(key))
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.entries)))
	for _, e := range n.entries {
		item := reflect.New(v.Type().Elem()).Elem()
		ok := d.value(e.value, item, e.key)
		v.SetMapIndex(reflect.ValueOf(e.key).Convert(v.Type().Key()), item)
		if v.CanAddr() {
			d.places[keyPlace{v.Addr().Interface(), e.key}] = place{e.pos, !ok}
		}
	}
	return true
}

func (d *decoder) text(n *node, v reflect.Value, key string) bool {
	if n.kind != scalar {
		return d.notScalar(n, key)
	}
	err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.value))
	switch {
	case err == nil && v.Type() == typePrefix:
		return d.prefix(n, v.Interface().(netip.Prefix), key)
	case err == nil:
		return true
	case v.Type() == typePrefix:
		return d.report(n.pos, "%s%q is not a range of addresses; write 10.0.0.0/8, and 10.0.0.1/32 for one address", colon(key), n.shown())
	case n.dynamic():
		// The error may quote the value.
		return d.report(n.pos, "%sthe value of %s is not valid here", colon(key), n.written)
	}
	return d.report(n.pos, "%s%v", colon(key), err)
}

func (d *decoder) prefix(n *node, p netip.Prefix, key string) bool {
	if p == p.Masked() {
		return true
	}
	d.problems = append(d.problems, Problem{Pos: n.pos, Suggestion: p.Masked().String(),
		Message: fmt.Sprintf("%s%q has bits after the prefix", colon(key), n.shown())})
	return false
}

func (d *decoder) scalar(n *node, v reflect.Value, key string) bool {
	if n.kind != scalar {
		return d.notScalar(n, key)
	}
	wants := ""
	switch kind := v.Kind(); {
	case v.Type() == typeSecret:
		return d.secret(n, v, key)
	case kind == reflect.String:
		v.SetString(n.value)
	case v.Type() == typeDuration:
		t, err := time.ParseDuration(n.value)
		if err != nil || t < 0 {
			wants = "a duration such as 500ms, 10s or 720h"
		}
		v.SetInt(int64(t))
	case kind == reflect.Bool:
		if n.value != "true" && n.value != "false" || n.tag != "!!bool" && !n.dynamic() {
			wants = "true or false"
		}
		v.SetBool(n.value == "true")
	case v.CanInt():
		i, err := strconv.ParseInt(n.value, 10, v.Type().Bits())
		if err != nil || n.tag != "!!int" && !n.dynamic() {
			wants = "a whole number"
		}
		v.SetInt(i)
	case v.CanUint():
		u, err := strconv.ParseUint(n.value, 10, v.Type().Bits())
		if err != nil || n.tag != "!!int" && !n.dynamic() {
			wants = "a whole number, at least 0"
		}
		v.SetUint(u)
	case v.CanFloat():
		f, err := strconv.ParseFloat(n.value, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			wants = "a number"
		}
		v.SetFloat(f)
	default:
		panic("routes: cannot decode into " + v.Type().String())
	}
	if wants != "" {
		return d.report(n.pos, "%swants %s, not %q", colon(key), wants, n.shown())
	}
	return true
}

func (d *decoder) secret(n *node, v reflect.Value, key string) bool {
	v.SetString(n.value)
	if !d.options.Dev && madeByDev(n.value) {
		return d.report(n.pos, "%sthis secret was made by development mode; it must not be used elsewhere", colon(key))
	}
	return true
}

func madeByDev(secret string) bool {
	if strings.HasPrefix(secret, DevSecretPrefix) {
		return true
	}
	decoded, err := base64.StdEncoding.DecodeString(secret)
	return err == nil && strings.HasPrefix(string(decoded), DevSecretPrefix)
}

// notScalar explains a mapping or list where one value is wanted.
func (d *decoder) notScalar(n *node, key string) bool {
	if n.kind == mapping && n.flow && len(n.entries) == 1 && n.entries[0].value.tag == "!!null" {
		return d.report(n.pos, `%sa value that starts with { needs quotes: "{%s}"`, colon(key), n.entries[0].key)
	}
	what := "list"
	if n.kind == mapping {
		what = "mapping"
	}
	return d.report(n.pos, "%swants one value, not a %s", colon(key), what)
}

// plainValue is the value that JSON would have: claims of a test.
func plainValue(n *node) any {
	switch n.kind {
	case sequence:
		list := make([]any, len(n.items))
		for i, item := range n.items {
			list[i] = plainValue(item)
		}
		return list
	case mapping:
		m := make(map[string]any, len(n.entries))
		for _, e := range n.entries {
			m[e.key] = plainValue(e.value)
		}
		return m
	}
	switch n.tag {
	case "!!null":
		return nil
	case "!!bool":
		return n.value == "true"
	case "!!int", "!!float":
		if f, err := strconv.ParseFloat(n.value, 64); err == nil {
			return f
		}
	}
	return n.value
}

func colon(key string) string {
	if key == "" {
		return ""
	}
	return key + ": "
}
