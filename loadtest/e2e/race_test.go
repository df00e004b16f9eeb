//go:build race

package e2e

// raceEnabled has the program under test built with the race detector too.
const raceEnabled = true
