package headers

import (
	"testing"

	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	plugintest.Bad(t, "testdata/bad/*.yaml", func(path string) error {
		_, err := plugintest.Load(path, New())
		return err
	})
}
