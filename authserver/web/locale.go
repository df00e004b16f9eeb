package web

import (
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/text/language"
)

// fallback is the language of whoever speaks none of ours. Its catalogue is
// complete.
const fallback = "en"

// texts is the catalogue of one language.
type texts struct{ own, english map[string]string }

// text returns a text with its verbs filled in.
func (t texts) text(key string, args ...any) (string, error) {
	format, ok := t.own[key]
	if !ok {
		format, ok = t.english[key]
	}
	if !ok {
		return "", fmt.Errorf("text %q is not in the catalogue", key)
	}
	if len(args) == 0 {
		return format, nil
	}
	return fmt.Sprintf(format, args...), nil
}

// scope describes a scope: by the catalogue of the language, else as the
// operator declared it.
func (t texts) scope(name, description string) (string, error) {
	if s, ok := t.own["scope."+name]; ok {
		return s, nil
	}
	if description != "" {
		return description, nil
	}
	if s, ok := t.english["scope."+name]; ok {
		return s, nil
	}
	return name, nil
}

// maxLocales bounds what is parsed of what a client or a browser asks for.
const maxLocales = 512

// language returns the index of the language that suits best: what the
// application asked for comes first (OpenID Connect Core, 3.1.2.1), then what
// the browser prefers.
func (l *Look) language(r *http.Request, locales string) int {
	if locales == "" && r.Method == http.MethodGet {
		if form, err := ParseQuery(r.URL.RawQuery); err == nil {
			locales = form.Value("ui_locales")
		}
	}
	var wanted []language.Tag
	if len(locales) <= maxLocales {
		for one := range strings.FieldsSeq(locales) {
			if tag, err := language.Parse(one); err == nil {
				wanted = append(wanted, tag)
			}
		}
	}
	if accept := r.Header.Get("Accept-Language"); len(accept) <= maxLocales {
		if tags, _, err := language.ParseAcceptLanguage(accept); err == nil {
			wanted = append(wanted, tags...)
		}
	}
	_, index, confidence := l.matcher.Match(wanted...)
	if confidence == language.No {
		return 0
	}
	return index
}
