package routes

// Node is a part of the file that is decoded later, by the plugin that owns
// it. The zero Node is absent. A Node is immutable.
type Node struct {
	n   *node
	dev bool // Options.Dev
}

// kind tells the three shapes of YAML apart.
type kind uint8

const (
	scalar kind = iota + 1
	sequence
	mapping
)

// node is one value of the file with its place, independent of the YAML
// library: aliases are expanded and variables put in.
type node struct {
	pos   Pos
	kind  kind
	tag   string // of a scalar: !!str, !!int, !!float, !!bool, !!null
	value string // of a scalar
	// written is the scalar as it stands in the file where the value came from
	// the environment or a secret file, so that messages can show this instead.
	written string
	// broken: a problem was reported for this value, so nobody else complains.
	broken  bool
	flow    bool    // of a mapping: {…}
	items   []*node // of a sequence
	entries []entry // of a mapping, in file order
}

func (n *node) dynamic() bool { return n.written != "" }

// shown is the scalar as messages may show it.
func (n *node) shown() string {
	if n.dynamic() {
		return n.written
	}
	return n.value
}

// find returns the entry of a mapping, nil where there is none.
func (n *node) find(key string) *entry {
	for i := range n.entries {
		if n.entries[i].key == key {
			return &n.entries[i]
		}
	}
	return nil
}

// take removes an entry of a mapping and returns it.
func (n *node) take(key string) *entry {
	for i, e := range n.entries {
		if e.key == key {
			n.entries = append(n.entries[:i:i], n.entries[i+1:]...)
			return &e
		}
	}
	return nil
}

type entry struct {
	key   string
	pos   Pos // of the key
	value *node
}

// IsZero reports whether nothing stands there.
func (n Node) IsZero() bool { return n.n == nil }

// Pos is the place of the value.
func (n Node) Pos() Pos {
	if n.n == nil {
		return Pos{}
	}
	return n.n.pos
}
