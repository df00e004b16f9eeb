package routes

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFile bounds one configuration file.
const maxFile = 16 << 20

// Options are what Load cannot know from the file.
type Options struct {
	// Plugins are the names of the plugins whose settings may stand on a
	// route; see Route.Plugin.
	Plugins []string
	// Env looks up ${VAR}; nil: the process environment.
	Env func(string) (string, bool)
	// Dev admits the secrets that development mode makes (DevSecretPrefix).
	Dev bool
}

// DevSecretPrefix marks secrets made by development mode, in their text or in
// what their base64 decodes to. Load refuses them without Options.Dev.
const DevSecretPrefix = "gatehouse-dev-"

// Load reads a configuration file and what it includes. The error is Problems:
// every mistake of every file, conflicts of routes too, sorted by place. With
// an error the File holds only Path and Sources, so that a watcher sees the
// edit that repairs it.
//
// Paths of included files, secret files and certificates are relative to the
// file that names them.
func Load(path string, o Options) (*File, error) {
	l := &loader{options: o, included: map[string]Pos{}}
	l.vars = substitution{env: o.Env, sources: l.source}
	if l.vars.env == nil {
		l.vars.env = os.LookupEnv
	}
	root := l.file(path, Pos{File: path})
	problems := append(l.problems, l.vars.problems...)
	sources := func() []string {
		slices.Sort(l.sources)
		return slices.Compact(l.sources)
	}
	if root == nil {
		return &File{Path: path, Sources: sources()}, problems.err()
	}
	problems = append(problems, spreadDefaults(root, o.Plugins)...)
	file := &File{Path: path, Warnings: l.warnings}
	d := newDecoder(o)
	d.decode(root, file)
	problems = append(problems, d.problems...)
	c := &checker{file: file, places: d.places, options: o, sources: l.source}
	c.check(Pos{File: path})
	problems = append(problems, c.problems...)
	file.Sources = sources()
	file.Warnings = append(file.Warnings, c.warnings...)
	Problems(file.Warnings).sort()
	if err := problems.err(); err != nil {
		return &File{Path: path, Sources: file.Sources}, err
	}
	return file, nil
}

// loader reads files and merges what they include.
type loader struct {
	options  Options
	vars     substitution
	problems Problems
	warnings []Problem
	sources  []string
	included map[string]Pos // by absolute path: where it was named
	stack    []string       // absolute paths of the files being read
}

func (l *loader) source(path string) { l.sources = append(l.sources, path) }

func (l *loader) report(pos Pos, format string, args ...any) {
	l.problems = append(l.problems, Problem{Pos: pos, Message: fmt.Sprintf(format, args...)})
}

// file reads one file, named at a place, with everything below it.
func (l *loader) file(path string, named Pos) *node {
	absolute, err := filepath.Abs(path)
	if err != nil {
		absolute = path
	}
	if slices.Contains(l.stack, absolute) {
		l.report(named, "include: %s includes itself", path)
		return nil
	}
	if first, twice := l.included[absolute]; twice {
		l.report(named, "include: %s is included twice, first at %v", path, first)
		return nil
	}
	l.included[absolute] = named
	l.source(path)
	data, err := readBounded(path, maxFile)
	if err != nil {
		l.report(named, "the configuration file %s: %v", path, err)
		return nil
	}
	root, problems := parseYAML(path, data)
	l.problems = append(l.problems, problems...)
	if root == nil {
		return nil
	}
	if root.broken {
		return nil
	}
	if root.kind != mapping {
		l.report(root.pos, "a configuration file is a mapping: keys such as listeners, services and routes")
		return nil
	}
	l.vars.apply(root)
	include := root.take("include")
	if include == nil {
		return root
	}
	l.stack = append(l.stack, absolute)
	for _, pattern := range l.patterns(include.value) {
		for _, match := range l.glob(pattern, filepath.Dir(path)) {
			if below := l.file(match, pattern.pos); below != nil {
				l.merge(root, below, "")
			}
		}
	}
	l.stack = l.stack[:len(l.stack)-1]
	return root
}

// patterns are the scalars of include:, a list or one pattern.
func (l *loader) patterns(n *node) (patterns []*node) {
	items := n.items
	if n.kind == scalar {
		items = []*node{n}
	}
	for _, item := range items {
		if item.broken {
			continue
		}
		if item.kind != scalar || item.tag == "!!null" || item.value == "" {
			l.report(item.pos, "include: wants file names such as routes/*.yaml")
			continue
		}
		patterns = append(patterns, item)
	}
	if n.kind == mapping {
		l.report(n.pos, "include: wants a list of file names such as routes/*.yaml")
	}
	return patterns
}

// glob finds the files of a pattern and watches the folders where new ones may
// appear. Hidden files match only patterns that name the dot, as in a shell:
// editors leave their lock files next to the edited one.
func (l *loader) glob(pattern *node, dir string) (files []string) {
	if !wild(pattern.value) {
		if filepath.IsAbs(pattern.value) {
			return []string{pattern.value}
		}
		return []string{filepath.Join(dir, pattern.value)}
	}
	if strings.Contains(pattern.value, "**") {
		l.report(pattern.pos, "include: ** is not supported; name each level: routes/*/*.yaml")
		return nil
	}
	path := filepath.Clean(pattern.value)
	if !filepath.IsAbs(path) {
		path = filepath.Join(globEscape.Replace(dir), path)
	}
	matches, err := filepath.Glob(path)
	if err != nil {
		l.report(pattern.pos, "include: %q is not a pattern", pattern.value)
		return nil
	}
	for folder := path; wild(folder); {
		folder = filepath.Dir(folder)
		found, _ := filepath.Glob(folder)
		for _, f := range found {
			if info, err := os.Stat(f); err == nil && info.IsDir() {
				l.source(f)
			}
		}
	}
	for _, match := range matches {
		if strings.HasPrefix(filepath.Base(match), ".") && !strings.HasPrefix(filepath.Base(path), ".") {
			continue
		}
		if info, err := os.Stat(match); err == nil && info.IsDir() {
			continue
		}
		files = append(files, match)
	}
	if len(files) == 0 {
		l.warnings = append(l.warnings, Problem{Pos: pattern.pos, Message: fmt.Sprintf("include: no file matches %q yet", pattern.value)})
	}
	return files
}

// wild reports whether a pattern has a wildcard that is not escaped.
func wild(pattern string) bool {
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// globEscape makes a folder's name match itself only.
var globEscape = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`)

// definitions are the mappings whose keys are names that users choose; a name
// is defined in one place.
var definitions = map[string]string{
	"services": "service", "limits": "limit", "authserver.scopes": "scope", "api_keys": "set of API keys",
}

// merge adds what from holds to n: lists append, mappings merge, and a value
// that both have is a mistake.
func (l *loader) merge(n, from *node, path string) {
	for _, e := range from.entries {
		own := n.find(e.key)
		below := strings.TrimPrefix(path+"."+e.key, ".")
		switch {
		case own == nil:
			n.entries = append(n.entries, e)
		case definitions[path] != "":
			l.report(e.pos, "the %s %q is defined twice, first at %v", definitions[path], e.key, own.pos)
		case own.value.kind == sequence && e.value.kind == sequence:
			own.value.items = append(own.value.items, e.value.items...)
		case own.value.kind == mapping && e.value.kind == mapping:
			l.merge(own.value, e.value, below)
		default:
			l.report(e.pos, "%s is set twice, first at %v", below, own.pos)
		}
	}
}
