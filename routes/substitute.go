package routes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxSecretFile bounds what ${file:PATH} reads.
const maxSecretFile = 64 << 10

// substitution puts the environment and secret files into scalars.
type substitution struct {
	env      func(string) (string, bool)
	sources  func(path string)
	problems Problems
}

// apply replaces ${VAR}, ${VAR:-default} and ${file:PATH} in every scalar of n;
// keys stay as they are.
func (s *substitution) apply(n *node) {
	switch n.kind {
	case sequence:
		for _, item := range n.items {
			s.apply(item)
		}
	case mapping:
		for _, e := range n.entries {
			s.apply(e.value)
		}
	case scalar:
		if n.dynamic() || !strings.Contains(n.value, "${") {
			return
		}
		value, dynamic, err := s.expand(n.value, filepath.Dir(n.pos.File))
		if err != nil {
			s.problems = append(s.problems, Problem{Pos: n.pos, Message: err.Error()})
			n.broken = true
		}
		if dynamic {
			n.written = n.value
		}
		n.value = value
	}
}

func (s *substitution) expand(text, dir string) (value string, dynamic bool, err error) {
	var b strings.Builder
	var problems []error
	for {
		before, after, found := strings.Cut(text, "${")
		if !found {
			b.WriteString(text)
			return b.String(), dynamic, errors.Join(problems...)
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			b.WriteString(literal + "${")
			text = after
			continue
		}
		b.WriteString(before)
		name, rest, closed := strings.Cut(after, "}")
		if !closed {
			return "", true, errors.New("${ without }; write $${ for a literal ${")
		}
		value, err := s.lookUp(name, dir)
		if err != nil {
			problems = append(problems, err)
		}
		b.WriteString(value)
		dynamic = true
		text = rest
	}
}

func (s *substitution) lookUp(name, dir string) (string, error) {
	if path, ok := strings.CutPrefix(name, "file:"); ok {
		return s.secretFile(path, dir)
	}
	name, otherwise, optional := strings.Cut(name, ":-")
	if !validParameter(name) {
		return "", fmt.Errorf("${%s} is not a variable; write ${VAR}, ${VAR:-default} or ${file:PATH}, and $${ for a literal ${", name)
	}
	value, set := s.env(name)
	switch {
	case optional && value == "":
		return otherwise, nil
	case !set:
		return "", fmt.Errorf("the environment variable %s is not set", name)
	}
	return value, nil
}

// secretFile reads a file without its final newline. path is relative to dir.
func (s *substitution) secretFile(path, dir string) (string, error) {
	if path == "" {
		return "", errors.New("${file:} names no file")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	s.sources(path)
	data, err := readBounded(path, maxSecretFile)
	if err != nil {
		return "", fmt.Errorf("the secret file %s: %w", path, err)
	}
	value := strings.TrimSuffix(string(data), "\n")
	return strings.TrimSuffix(value, "\r"), nil
}

var errNoFile = errors.New("is not a file")

// readBounded reads a whole regular file. Its errors do not repeat the path.
func readBounded(path string, limit int64) ([]byte, error) {
	// A pipe or a device without a writer would block the open.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errNoFile
	}
	if err != nil {
		return nil, withoutPath(err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("is larger than %v", Size(limit))
	}
	return data, nil
}

func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
