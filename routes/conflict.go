package routes

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
)

// insert puts a rule at its place, before those it is preferred to.
func (b *branch) insert(r rule) {
	for _, s := range r.pattern.segments {
		b = b.child(s)
	}
	rules := &b.end
	if r.pattern.tail {
		rules = &b.tail
	}
	at, _ := slices.BinarySearchFunc(*rules, r, func(have, added rule) int {
		// Equal ones conflict or have no method in common; keep file order.
		return cmp.Or(have.prefers(added), -1)
	})
	*rules = slices.Insert(*rules, at, r)
}

func (b *branch) child(s segment) *branch {
	if s.kind != literal {
		if b.wild == nil {
			b.wild = &branch{}
		}
		return b.wild
	}
	child := b.literals[s.text]
	if child == nil {
		child = &branch{}
		if b.literals == nil {
			b.literals = map[string]*branch{}
		}
		b.literals[s.text] = child
	}
	return child
}

// prefers orders rules with the same set of paths: negative where r goes first.
func (r rule) prefers(s rule) int {
	return cmp.Or(
		r.pattern.prefers(s.pattern),
		cmp.Compare(bits.OnesCount64(r.methods), bits.OnesCount64(s.methods)),
	)
}

// maxConflicts bounds what is said about one route; the first are enough to
// understand the others.
const maxConflicts = 5

// conflicts describes the earlier rules of a host that conflict with r.
func (b *branch) conflicts(r rule, host string) (messages []string) {
	var others []rule
	b.overlapping(r.pattern.segments, r.pattern.tail, func(other rule) {
		if r.conflictsWith(other) {
			others = append(others, other)
		}
	})
	slices.SortFunc(others, func(x, y rule) int { return cmp.Compare(x.order, y.order) })
	for _, other := range others[:min(len(others), maxConflicts)] {
		messages = append(messages, fmt.Sprintf(
			"route %q conflicts with route %q at %v: both match %s, and neither is more specific",
			r.route.Name, other.route.Name, other.route.Pos, example(r, other, host)))
	}
	return messages
}

// overlapping calls f for every rule below b with a path in common with the
// pattern whose remaining segments are given.
func (b *branch) overlapping(segments []segment, tail bool, f func(rule)) {
	for _, r := range b.tail {
		f(r)
	}
	if len(segments) == 0 {
		for _, r := range b.end {
			f(r)
		}
		if tail {
			b.below(f)
		}
		return
	}
	s, rest := segments[0], segments[1:]
	if s.kind == literal {
		if child := b.literals[s.text]; child != nil {
			child.overlapping(rest, tail, f)
		}
		if b.wild != nil && s.text != "" {
			b.wild.overlapping(rest, tail, f)
		}
		return
	}
	for text, child := range b.literals {
		if text != "" {
			child.overlapping(rest, tail, f)
		}
	}
	if b.wild != nil {
		b.wild.overlapping(rest, tail, f)
	}
}

// below calls f for every rule of b's children, whatever its depth.
func (b *branch) below(f func(rule)) {
	visit := func(child *branch) {
		for _, rules := range [][]rule{child.end, child.tail} {
			for _, r := range rules {
				f(r)
			}
		}
		child.below(f)
	}
	for _, child := range b.literals {
		visit(child)
	}
	if b.wild != nil {
		visit(b.wild)
	}
}

// conflictsWith reports whether some request of one host matches both r and s
// and neither is more specific.
func (r rule) conflictsWith(s rule) bool {
	common := r.methods & s.methods
	if common == 0 {
		return false
	}
	switch r.pattern.relate(s.pattern) {
	case crossing:
		return true
	case equal:
		nested := r.methods != s.methods && (common == r.methods || common == s.methods)
		return r.pattern.prefers(s.pattern) == 0 && !nested
	}
	return false
}

// example is a request that both rules match.
func example(r, s rule, host string) string {
	method := "GET"
	for _, m := range [][]string{r.route.Methods, s.route.Methods} {
		for _, name := range m {
			if admits(r.route, name) && admits(s.route, name) {
				method = name
			}
		}
	}
	if name, _, err := parseHost(host); err == nil {
		if name != host {
			name = "x." + name
		}
		host = name
	}
	return method + " " + host + r.pattern.example(s.pattern)
}

func admits(r *Route, method string) bool {
	return len(r.Methods) == 0 || slices.Contains(r.Methods, method)
}
