package routes

import "strings"

// rewrite checks what can be known of a rewriting before there is a request.
func (c *checker) rewrite(r *Route) {
	w := r.Rewrite
	if w == nil || c.broken(&r.Rewrite) {
		return
	}
	if !c.written(&w.StripPrefix) && !c.written(&w.Regex) && !c.written(&w.To) && !c.written(&w.AddPrefix) {
		c.report(w.Pos, "rewrite: wants strip_prefix, regex and to, or add_prefix")
		return
	}
	if c.written(&w.StripPrefix) {
		c.stripPrefix(r, w)
	}
	if c.written(&w.AddPrefix) && c.required(&w.AddPrefix, "rewrite: add_prefix", w.Pos) {
		c.prefix(&w.AddPrefix, "add_prefix", w, r.AllowEncodedSlash)
	}
	if (c.written(&w.Regex) || c.written(&w.To)) && c.required(&w.Regex, "rewrite: regex", w.Pos) && c.required(&w.To, "rewrite: to", w.Pos) {
		if _, err := w.Compile(r.AllowEncodedSlash); err != nil {
			pos := c.at(&w.To, w.Pos)
			if strings.HasPrefix(err.Error(), "regex") {
				pos = c.at(&w.Regex, w.Pos)
			}
			c.report(pos, "%v", err)
		}
	}
}

// prefix checks the form of a prefix that is taken away or put in front.
func (c *checker) prefix(prefix *string, key string, w *Rewrite, allowEncodedSlash bool) bool {
	pos := c.at(prefix, w.Pos)
	canonical, ok := CanonicalPath(nil, []byte(*prefix), allowEncodedSlash)
	switch {
	case !ok:
		c.report(pos, "%s: %q is not a path", key, *prefix)
	case *prefix == "/":
		c.report(pos, "%s: / changes nothing", key)
	case string(canonical) != *prefix || strings.HasSuffix(*prefix, "/"):
		c.report(pos, "%s: write it as %q", key, "/"+strings.Trim(string(canonical), "/"))
	default:
		return true
	}
	return false
}

// stripPrefix checks that every path of the route starts with the prefix.
func (c *checker) stripPrefix(r *Route, w *Rewrite) {
	if !c.required(&w.StripPrefix, "rewrite: strip_prefix", w.Pos) || !c.prefix(&w.StripPrefix, "strip_prefix", w, r.AllowEncodedSlash) {
		return
	}
	if p, err := parsePattern(r.Path); err == nil && !p.literalPrefix(w.StripPrefix) {
		c.report(c.at(&w.StripPrefix, w.Pos), "strip_prefix: %q does not start every path of %q", w.StripPrefix, r.Path)
	}
}
