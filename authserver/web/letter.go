package web

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"io"
	"maps"
	"net/http"
	"slices"
	texttemplate "text/template"

	"golang.org/x/text/language"
)

// Letter is a mail to a person. Its texts are those of the catalogue under
// "mail.NAME."; its looks those of the templates mail.html and mail.txt.
type Letter struct {
	Name     string
	Language string // as Pages.Language gave it; "" for the fallback
	Lines    []Line
	Links    []Link
	// Notes follow the links.
	Notes []Line
}

// Line is a text of the catalogue, by its whole key, with what its verbs want.
type Line struct {
	Key  string
	Args []any
}

// Link is where a letter leads, and for which account.
type Link struct{ Account, URL string }

// letterView is what the templates of letters get.
type letterView struct {
	Subject string
	Lines   []string
	Links   []Link
	Notes   []string
}

// letterTemplates are those of one language.
type letterTemplates struct {
	html  *template.Template
	text  *texttemplate.Template
	texts texts
}

// The templates of letters.
const (
	letterHTML = "mail"
	letterText = "mail.txt"
)

// Language is the language that suits the request, for Letter.
func (p *Pages) Language(r *http.Request, locales string) string {
	look := p.look.Load()
	return look.tags[look.language(r, locales)].String()
}

// Write renders a letter: its subject, and its content as text and as HTML.
func (p *Pages) Write(l Letter) (subject, text, html string, err error) {
	return p.look.Load().write(l)
}

func (l *Look) write(letter Letter) (subject, text, html string, err error) {
	// A language may have gone with a theme since the letter was asked for.
	lang := max(0, slices.IndexFunc(l.tags, func(t language.Tag) bool { return t.String() == letter.Language }))
	t := l.letters[lang]
	v := letterView{Links: letter.Links}
	if v.Subject, err = t.texts.text("mail." + letter.Name + ".subject"); err != nil {
		return "", "", "", err
	}
	if v.Lines, err = t.texts.lines(letter.Lines); err != nil {
		return "", "", "", err
	}
	if v.Notes, err = t.texts.lines(letter.Notes); err != nil {
		return "", "", "", err
	}
	var plain, rich bytes.Buffer
	if err := t.text.Execute(&plain, v); err != nil {
		return "", "", "", located(err)
	}
	if err := t.html.Execute(&rich, v); err != nil {
		return "", "", "", located(err)
	}
	return v.Subject, plain.String(), rich.String(), nil
}

func (t texts) lines(lines []Line) (list []string, err error) {
	for _, line := range lines {
		text, err := t.text(line.Key, line.Args...)
		if err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, nil
}

// parseLetters parses the templates of letters, and tries them.
func parseLetters(s *sources, functions template.FuncMap, t texts) (letterTemplates, error) {
	own := maps.Clone(functions)
	maps.DeleteFunc(own, func(name string, _ any) bool { return name != "t" && name != "url" })
	l := letterTemplates{texts: t}
	var errs [2]error
	l.html, errs[0] = template.New(s.templates[letterHTML].path).Funcs(own).Parse(s.templates[letterHTML].text)
	l.text, errs[1] = texttemplate.New(s.templates[letterText].path).Funcs(own).Parse(s.templates[letterText].text)
	for i, err := range errs {
		if err != nil {
			errs[i] = located(err)
		}
	}
	if err := errors.Join(errs[:]...); err != nil {
		return l, err
	}
	sample := letterView{Subject: "s", Lines: []string{"l"}, Links: []Link{{"alice", "https://example.com"}, {"", "https://example.com"}}, Notes: []string{"n"}}
	for _, v := range []letterView{sample, {Subject: "s"}} {
		for i, execute := range []func(io.Writer, any) error{l.html.Execute, l.text.Execute} {
			if err := execute(io.Discard, v); err != nil && errs[i] == nil {
				errs[i] = located(err)
			}
		}
	}
	return l, errors.Join(errs[:]...)
}

// tryLetters renders letters in every language, so that a text that they lack is
// found before somebody needs it.
func (l *Look) tryLetters(letters []Letter) error {
	for _, letter := range letters {
		for _, tag := range l.tags {
			letter.Language = tag.String()
			if _, _, _, err := l.write(letter); err != nil {
				return fmt.Errorf("mail %s: %w", letter.Name, err)
			}
		}
	}
	return nil
}
