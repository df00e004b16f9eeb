package routes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Bounds of one file. A file of 10,000 routes has some 300,000 values.
const (
	maxDepth    = 64
	maxExpanded = 100_000 // values that aliases add
)

// parseYAML reads one document into nodes, or says all that is wrong with it.
// The node is nil where there is nothing to work with.
func parseYAML(file string, data []byte) (*node, Problems) {
	c := converter{file: file, active: map[*yaml.Node]bool{}}
	whole := Pos{File: file, Line: 1, Column: 1}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, Problems{{Pos: whole, Message: "the file is empty"}}
	case err != nil:
		return nil, Problems{syntaxProblem(file, data, err)}
	}
	if len(document.Content) != 1 {
		return nil, Problems{{Pos: whole, Message: "the file is empty"}}
	}
	n := c.node(document.Content[0], 0)
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		c.problems = append(c.problems, syntaxProblem(file, data, err))
	default:
		c.problems = append(c.problems, Problem{Pos: c.pos(&second),
			Message: "a second document starts here; a file holds one (use include: for several files)"})
	}
	return n, c.problems
}

// converter turns the library's nodes into ours.
type converter struct {
	file     string
	problems Problems
	active   map[*yaml.Node]bool // around the current node
	expanded int
	aliases  int // depth of aliases around the current node
}

func (c *converter) pos(n *yaml.Node) Pos {
	return Pos{File: c.file, Line: n.Line, Column: n.Column}
}

// report adds a problem and returns the node that stands for n then.
func (c *converter) report(n *yaml.Node, format string, args ...any) *node {
	c.problems = append(c.problems, Problem{Pos: c.pos(n), Message: fmt.Sprintf(format, args...)})
	return &node{pos: c.pos(n), broken: true}
}

// node converts n; the result is broken where a problem was reported.
func (c *converter) node(n *yaml.Node, depth int) *node {
	if depth > maxDepth {
		return c.report(n, "nested more than %d levels deep", maxDepth)
	}
	if c.aliases > 0 {
		c.expanded++
		if c.expanded == maxExpanded {
			return c.report(n, "aliases expand to more than %d values", maxExpanded)
		}
		if c.expanded > maxExpanded {
			return &node{pos: c.pos(n), broken: true}
		}
	}
	c.active[n] = true
	defer delete(c.active, n)
	switch n.Kind {
	case yaml.ScalarNode:
		return c.scalar(n)
	case yaml.SequenceNode:
		s := &node{pos: c.pos(n), kind: sequence}
		for _, item := range n.Content {
			s.items = append(s.items, c.node(item, depth+1))
		}
		return s
	case yaml.MappingNode:
		return c.mapping(n, depth)
	case yaml.AliasNode:
		if n.Alias == nil || c.active[n.Alias] {
			return c.report(n, "the alias *%s stands inside of what it stands for", n.Value)
		}
		c.aliases++
		converted := c.node(n.Alias, depth+1)
		c.aliases--
		return converted
	}
	return c.report(n, "this is not a value")
}

func (c *converter) scalar(n *yaml.Node) *node {
	tag := n.ShortTag()
	switch tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!null":
	case "!!timestamp", "!!merge":
		tag = "!!str"
	default:
		return c.report(n, "the tag %s is not supported", tag)
	}
	return &node{pos: c.pos(n), kind: scalar, tag: tag, value: n.Value}
}

func (c *converter) mapping(n *yaml.Node, depth int) *node {
	m := &node{pos: c.pos(n), kind: mapping, flow: n.Style&yaml.FlowStyle != 0}
	first := map[string]Pos{}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			c.report(key, "a key must be a word; a value that starts with { or [ needs quotes")
			continue
		}
		if at, twice := first[key.Value]; twice {
			c.report(key, "the key %q stands there twice, first at %v", key.Value, at)
			continue
		}
		first[key.Value] = c.pos(key)
		m.entries = append(m.entries, entry{key: key.Value, pos: c.pos(key), value: c.node(value, depth+1)})
	}
	for _, value := range merged {
		c.merge(m, first, value, depth)
	}
	return m
}

// merge adds the entries of "<<: *alias" that m does not have itself.
func (c *converter) merge(m *node, have map[string]Pos, value *yaml.Node, depth int) {
	from := c.node(value, depth+1)
	if from.broken {
		return
	}
	sources := []*node{from}
	if from.kind == sequence {
		sources = from.items
	}
	for _, source := range sources {
		if source.kind != mapping {
			c.report(value, "<< takes a mapping or a list of mappings")
			return
		}
		for _, e := range source.entries {
			if _, own := have[e.key]; !own {
				have[e.key] = e.pos
				m.entries = append(m.entries, e)
			}
		}
	}
}

var (
	unquotedBraces = regexp.MustCompile(`\$\{[^}]*\}|\{[A-Za-z_][A-Za-z0-9_]*\}`)
	unknownAnchor  = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntaxProblem words an error of the YAML library. Where the usual mistake of
// this file's readers explains it, the message says that instead.
func syntaxProblem(file string, data []byte, err error) Problem {
	p := Problem{Pos: Pos{File: file, Line: 1, Column: 1}, Message: "this is not YAML"}
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		return p
	}
	if load.Mark.Line > 0 {
		p.Pos.Line, p.Pos.Column = load.Mark.Line, max(1, load.Mark.Column)
	} else if i := load.Mark.Index; i > 0 && i <= len(data) {
		before := data[:i]
		p.Pos.Line = 1 + bytes.Count(before, []byte{'\n'})
		p.Pos.Column = i - bytes.LastIndexByte(before, '\n')
	}
	p.Message = "this is not YAML: " + load.Message
	line := lineOf(data, p.Pos.Line)
	anchor := unknownAnchor.FindStringSubmatch(load.Message)
	switch {
	case anchor != nil && strings.HasPrefix(anchor[1], "."):
		p.Message = fmt.Sprintf(`*%s needs quotes: "*%s"`, anchor[1], anchor[1])
	case anchor != nil:
		p.Message = fmt.Sprintf("the alias *%s has no anchor &%s before it; a text that starts with * needs quotes", anchor[1], anchor[1])
	case strings.Contains(load.Message, "tab character"), strings.HasPrefix(line[min(len(line), p.Pos.Column-1):], "\t"):
		p.Message = "a tab stands in the indentation; indent with spaces"
	case strings.HasPrefix(load.Message, "did not find expected") && unquotedBraces.MatchString(line):
		at := unquotedBraces.FindStringIndex(line)
		p.Pos.Column = len([]rune(line[:at[0]])) + 1
		found := line[at[0]:at[1]]
		p.Message = fmt.Sprintf("the value with %s needs quotes, as everywhere inside {…} and […] and where a value starts with {", found)
	case load.ContextMark.Line > 0 && notClosed(load) != "":
		p.Pos.Line, p.Pos.Column = load.ContextMark.Line, load.ContextMark.Column
		p.Message = notClosed(load)
	case strings.Contains(load.Message, "cannot start any token"):
		p.Message = "a value that starts with @, ` or % needs quotes"
	case strings.HasPrefix(load.Message, "mapping values are not allowed"):
		p.Message = "a second ': ' stands on this line, or it is indented wrongly; a text with ': ' in it needs quotes"
	}
	return p
}

// notClosed words the errors that are noticed far behind the mistake.
func notClosed(e *yaml.LoadError) string {
	switch {
	case strings.HasPrefix(e.Message, "did not find expected ','"):
		return "this bracket is not closed, or a comma is missing behind it"
	case e.ContextMsg == "while scanning a quoted scalar" && strings.HasPrefix(e.Message, "found unexpected"):
		return "this quotation mark is not closed"
	}
	return ""
}

func lineOf(data []byte, number int) string {
	for line := range bytes.Lines(data) {
		if number--; number == 0 {
			return string(line)
		}
	}
	return ""
}
