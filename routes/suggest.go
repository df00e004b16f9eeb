package routes

import (
	"slices"
	"strings"
)

// nearest returns the name that was probably meant by word: the same but for
// case and separators, or at most two edits away. Empty where none is near.
func nearest(word string, names []string) string {
	best, distance := "", 3
	folded := foldName(word)
	for _, name := range names {
		d := edits(word, name)
		if foldName(name) == folded {
			d = 0
		}
		// Two edits turn any word of two letters into any other.
		if d < distance && d < max(len(word), len(name)) && d*2 <= max(len(word), len(name)) {
			best, distance = name, d
		}
	}
	return best
}

func foldName(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

// edits is the Damerau-Levenshtein distance (optimal string alignment), or 3
// where it is certainly larger than 2.
func edits(a, b string) int {
	if d := len(a) - len(b); d > 2 || d < -2 {
		return 3
	}
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(above[j]+cost, above[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}

// declared lists names for a message, shortened where they are many.
func declared(names []string) string {
	const most = 12
	names = slices.Sorted(slices.Values(names))
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
