package routes

// Node is a part of the file that is decoded later, by the plugin that owns
// it. The zero Node is absent. A Node is immutable.
type Node struct {
	n *node
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
	// dynamic: the value came from the environment or a secret file, so no
	// message may show it.
	dynamic bool
	items   []*node // of a sequence
	entries []entry // of a mapping, in file order
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
