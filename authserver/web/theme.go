package web

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

//go:embed templates/*.html templates/mail.txt texts/*.json static/style.css static/passkey.js
var files embed.FS

// layout is the template around every page.
const layout = "layout"

// sources are the files that a look is made of.
type sources struct {
	templates map[string]source // by page
	texts     map[string]map[string]string
	styles    [][]byte
	script    []byte
	logo      []byte
	logoName  string
}

// source is a template and where it comes from.
type source struct{ path, text string }

// logoKinds are the images that a theme's logo may be.
var logoKinds = map[string]string{".svg": svg, ".png": "image/png", ".webp": "image/webp"}

// maxThemeFile bounds a file of a theme.
const maxThemeFile = 1 << 20

// readSources reads the built-in files, and a theme's folder over them.
func readSources(folder string) (*sources, error) {
	s := &sources{templates: map[string]source{}, texts: map[string]map[string]string{}}
	entries, err := fs.Glob(files, "t*/*")
	if err != nil {
		return nil, err
	}
	for _, name := range entries {
		body, err := files.ReadFile(name)
		if err == nil {
			err = s.take(strings.TrimPrefix(name, "templates/"), name, body, true)
		}
		if err != nil {
			return nil, err
		}
	}
	style, err := files.ReadFile("static/style.css")
	if err != nil {
		return nil, err
	}
	s.styles = [][]byte{style}
	if s.script, err = files.ReadFile("static/passkey.js"); err != nil || folder == "" {
		return s, err
	}
	return s, s.readTheme(folder)
}

// readTheme reads a theme's folder: NAME.html in place of a built-in page,
// mail.txt beside mail.html for letters, style.css after the built-in one, logo.svg (.png, .webp), and texts/LANG.json
// with texts in place of the built-in ones or in a further language.
func (s *sources) readTheme(folder string) error {
	var problems []error
	err := filepath.WalkDir(folder, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(folder, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case name == "." || name == "texts":
			return nil
		case strings.HasPrefix(path.Base(name), ".") || strings.HasSuffix(name, "~"): // what editors and volumes leave
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			problems = append(problems, fmt.Errorf("%s: a theme has no folder but texts", file))
			return fs.SkipDir
		}
		if info, err := os.Stat(file); err != nil || info.Size() > maxThemeFile {
			problems = append(problems, errors.Join(err, fmt.Errorf("%s: a file of a theme has at most %d bytes", file, maxThemeFile)))
			return nil
		}
		body, err := os.ReadFile(file)
		if err == nil {
			err = s.take(name, file, body, false)
		}
		problems = append(problems, err)
		return nil
	})
	if err != nil {
		return fmt.Errorf("theme: %w", err)
	}
	return errors.Join(problems...)
}

// take puts a file in its place. file is its path for errors.
func (s *sources) take(name, file string, body []byte, builtIn bool) error {
	stem, ext := strings.TrimSuffix(path.Base(name), path.Ext(name)), path.Ext(name)
	_, isPage := s.templates[stem]
	switch {
	case path.Dir(name) == "texts" && ext == ".json":
		return s.takeTexts(stem, file, body, builtIn)
	case path.Dir(name) != ".":
	case ext == ".html" && (isPage || builtIn):
		s.templates[stem] = source{file, string(body)}
		return nil
	case name == letterText:
		s.templates[letterText] = source{file, string(body)}
		return nil
	case ext == ".html":
		return fmt.Errorf("%s:1: there is no page %q", file, stem)
	case name == "style.css":
		s.styles = append(s.styles, body)
		return nil
	case stem == "logo" && logoKinds[ext] != "":
		if s.logo != nil {
			return fmt.Errorf("%s: a second logo", file)
		}
		s.logo, s.logoName = body, name
		return nil
	}
	return fmt.Errorf("%s: a theme has pages (NAME.html), mail.txt, style.css, logo.svg, logo.png or logo.webp, and texts/LANGUAGE.json", file)
}

func (s *sources) takeTexts(lang, file string, body []byte, builtIn bool) error {
	var own map[string]string
	if err := json.Unmarshal(body, &own); err != nil {
		line := 1
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax):
			line += strings.Count(string(body[:min(int(syntax.Offset), len(body))]), "\n")
		case errors.As(err, &kind):
			line += strings.Count(string(body[:min(int(kind.Offset), len(body))]), "\n")
		}
		return fmt.Errorf("%s:%d: not an object of texts: %w", file, line, err)
	}
	if s.texts[lang] == nil {
		s.texts[lang] = map[string]string{"lang": lang, "dir": "ltr"}
	}
	var problems []error
	for key, text := range own {
		english, known := s.texts[fallback][key]
		switch {
		case builtIn || strings.HasPrefix(key, "scope."):
		case !known:
			problems = append(problems, fmt.Errorf("%s:%d: there is no text %q", file, lineOf(body, key), key))
			continue
		case verbs(text) != verbs(english):
			problems = append(problems, fmt.Errorf("%s:%d: the text %q needs the verbs %q of the English one", file, lineOf(body, key), key, verbs(english)))
			continue
		}
		s.texts[lang][key] = text
	}
	return errors.Join(problems...)
}

// lineOf is the line on which a key of a JSON object stands.
func lineOf(body []byte, key string) int {
	before, _, _ := strings.Cut(string(body), `"`+key+`"`)
	return 1 + strings.Count(before, "\n")
}

// verbs are what a text wants filled in.
func verbs(text string) string {
	var b strings.Builder
	for rest := text; ; {
		_, after, ok := strings.Cut(rest, "%")
		if !ok || after == "" {
			return b.String()
		}
		if after[0] != '%' {
			b.WriteString("%" + after[:1])
		}
		rest = after[1:]
	}
}
