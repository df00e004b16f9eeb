//go:build race

package rig

// RaceEnabled has the program under test built with the race detector too.
const RaceEnabled = true
