package routes

import (
	"cmp"
	"slices"
	"strings"
)

// Problem is one mistake, or one remark, with its place. It never holds the
// value of a secret.
type Problem struct {
	Pos     Pos    `json:"pos"`
	Message string `json:"message"`
	// Suggestion is what was probably meant; often empty.
	Suggestion string `json:"suggestion,omitempty"`
}

// String is `file:line:col: message (did you mean X?)`.
func (p Problem) String() string {
	s := p.Message
	if place := p.Pos.String(); place != "" {
		s = place + ": " + s
	}
	if p.Suggestion != "" {
		s += " (did you mean " + p.Suggestion + "?)"
	}
	return s
}

func (p Problem) Error() string { return p.String() }

// Problems are all mistakes of a configuration, sorted by file, line, column
// and message, one per line when printed. As an error it is never empty.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.Pos.File, b.Pos.File),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column),
			cmp.Compare(a.Message, b.Message),
		)
	})
}

// err is nil where there are no problems, else the sorted problems.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	ps.sort()
	return slices.Compact(ps)
}
