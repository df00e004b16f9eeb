package routes

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// PathRegex is the compiled regex and to of a Rewrite.
type PathRegex struct {
	regex             *regexp.Regexp
	pieces            []piece
	allowEncodedSlash bool
}

// piece is literal text, or the number of a group where text is empty.
type piece struct {
	text  string
	group int
}

// Compile makes the PathRegex of w. The error says whether "regex" or "to" is
// wrong. What to says by itself must be a part of a canonical path.
func (w *Rewrite) Compile(allowEncodedSlash bool) (*PathRegex, error) {
	// By itself first: what is put around it could make sense of half a group.
	if _, err := regexp.Compile(w.Regex); err != nil {
		return nil, fmt.Errorf("regex: %w", err)
	}
	regex, err := regexp.Compile("^(?:" + w.Regex + ")$")
	if err != nil {
		return nil, fmt.Errorf("regex: %w", err)
	}
	p := &PathRegex{regex: regex, allowEncodedSlash: allowEncodedSlash}
	if !strings.HasPrefix(w.To, "/") {
		return nil, fmt.Errorf("to: %q does not start with /", w.To)
	}
	for rest := w.To; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		if strings.ContainsAny(text, "}?#") {
			return nil, fmt.Errorf("to: %q is not a path with {1} or {name} in it", w.To)
		}
		if text != "" {
			p.pieces = append(p.pieces, piece{text: text})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(after, "}")
		group := p.group(name)
		if !closed || group < 0 {
			return nil, fmt.Errorf("to: the regex has no group {%s}", name)
		}
		p.pieces = append(p.pieces, piece{group: group})
		rest = after
	}
	return p, nil
}

// group is the number of a group, -1 for none.
func (p *PathRegex) group(name string) int {
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= p.regex.NumSubexp() {
		return n
	}
	if name == "" {
		return -1
	}
	return slices.Index(p.regex.SubexpNames(), name)
}

// Append appends to dst what path, which is canonical, becomes; path itself
// where the regex does not match. ok is false where the outcome is not
// canonical, so that it could mean another path to the service (EDGE: S33).
func (p *PathRegex) Append(dst, path []byte) (target []byte, ok bool) {
	match := p.regex.FindSubmatchIndex(path)
	if match == nil {
		return append(dst, path...), true
	}
	start := len(dst)
	for _, piece := range p.pieces {
		dst = append(dst, piece.text...)
		if from := match[2*piece.group]; piece.text == "" && from >= 0 {
			dst = append(dst, path[from:match[2*piece.group+1]]...)
		}
	}
	canonical, ok := CanonicalPath(nil, dst[start:], p.allowEncodedSlash)
	return dst, ok && bytes.Equal(canonical, dst[start:])
}
