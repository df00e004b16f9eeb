package authserver

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/gatehouse/gatehouse/authserver/account"
	"github.com/gatehouse/gatehouse/authserver/consent"
	"github.com/gatehouse/gatehouse/authserver/device"
	"github.com/gatehouse/gatehouse/authserver/login"
	"github.com/gatehouse/gatehouse/authserver/logout"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// samples is one of each page in each of its states, with which themes are
// tried before they go live.
func samples() []web.Page {
	return slices.Concat(login.Samples(), account.Samples(), consent.Samples(), device.Samples(), logout.Samples())
}

// CheckTheme reports everything that is wrong with a theme's folder, with file
// and line.
func CheckTheme(folder string) error {
	pages, err := web.NewPages("", slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("built-in pages: %w", err)
	}
	_, err = pages.Prepare(folder, samples())
	return err
}
