package web

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/text/language"
)

// Look is everything that people see: pages in every language, styles, script
// and logo. It does not change once it is made.
type Look struct {
	tags    []language.Tag // the first one is for who speaks none of them
	matcher language.Matcher
	pages   []map[string]*template.Template // by language, in the order of tags
	letters []letterTemplates               // likewise
	assets  map[string]asset                // by path
}

// asset is a file for browsers.
type asset struct {
	kind string
	body []byte
}

const svg = "image/svg+xml"

// compile makes a look of templates, texts and files.
func compile(s *sources, base string) (*Look, error) {
	l := &Look{assets: map[string]asset{}}
	var styles []string
	for _, style := range s.styles {
		styles = append(styles, l.add(base, "style", ".css", "text/css; charset=utf-8", style))
	}
	script := l.add(base, "passkey", ".js", "text/javascript; charset=utf-8", s.script)
	logo := ""
	if s.logo != nil {
		logo = l.add(base, "logo", path.Ext(s.logoName), logoKinds[path.Ext(s.logoName)], s.logo)
	}
	languages := slices.Sorted(maps.Keys(s.texts))
	slices.SortStableFunc(languages, func(a, b string) int { // English first
		return btoi(b == fallback) - btoi(a == fallback)
	})
	var problems []error
	for _, name := range languages {
		tag, err := language.Parse(name)
		if err != nil {
			problems = append(problems, fmt.Errorf("texts/%s.json: the name is not a language tag", name))
			continue
		}
		t := texts{own: s.texts[name], english: s.texts[fallback]}
		functions := template.FuncMap{
			"t":      t.text,
			"scope":  t.scope,
			"url":    func(p string) string { return base + "/oauth/" + p },
			"styles": func() []string { return styles },
			"script": func() string { return script },
			"logo":   func() string { return logo },
		}
		pages, err := parsePages(s, functions)
		letters, wrong := parseLetters(s, functions, t)
		if err := errors.Join(err, wrong); err != nil {
			return nil, err // the same in every language
		}
		l.tags, l.pages, l.letters = append(l.tags, tag), append(l.pages, pages), append(l.letters, letters)
	}
	l.matcher = language.NewMatcher(l.tags)
	return l, errors.Join(problems...)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// add keeps a file under a path that changes with its content.
func (l *Look) add(base, name, ext, kind string, body []byte) string {
	sum := sha256.Sum256(body)
	href := base + "/oauth/static/" + name + "." + hex.EncodeToString(sum[:8]) + ext
	l.assets[href] = asset{kind, body}
	return href
}

// parsePages parses each page together with the layout.
func parsePages(s *sources, functions template.FuncMap) (map[string]*template.Template, error) {
	var problems []error
	outer := s.templates[layout]
	root, err := template.New(outer.path).Funcs(functions).Parse(outer.text)
	if err != nil {
		return nil, located(err)
	}
	pages := map[string]*template.Template{}
	for _, name := range slices.Sorted(maps.Keys(s.templates)) {
		if name == layout || name == letterHTML || name == letterText {
			continue
		}
		page, err := root.Clone()
		if err == nil {
			_, err = page.New(s.templates[name].path).Parse(s.templates[name].text)
		}
		if err != nil {
			problems = append(problems, located(err))
			continue
		}
		pages[name] = page
	}
	return pages, errors.Join(problems...)
}

// located is an error of a template, which begins with file:line.
func located(err error) error {
	return errors.New(strings.TrimPrefix(strings.TrimPrefix(err.Error(), "template: "), "html/template:"))
}

func (l *Look) render(w io.Writer, lang int, page Page) error {
	t, ok := l.pages[lang][page.Name]
	if !ok {
		return fmt.Errorf("page %q does not exist", page.Name)
	}
	if err := t.Execute(w, struct {
		Name   string
		Data   any
		Script bool
	}{page.Name, page.Data, page.Script}); err != nil {
		return located(err)
	}
	return nil
}

// try renders samples, so that a template which asks for what a page does not
// have is found before somebody sees it.
func (l *Look) try(samples []Page) error {
	seen := map[string]bool{}
	var problems []error
	for _, page := range samples {
		for lang := range l.pages {
			if err := l.render(io.Discard, lang, page); err != nil && !seen[err.Error()] {
				seen[err.Error()] = true
				problems = append(problems, err)
			}
		}
	}
	return errors.Join(problems...)
}
