package authserver

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/gatehouse/gatehouse/authserver/account"
	"github.com/gatehouse/gatehouse/authserver/consent"
	"github.com/gatehouse/gatehouse/authserver/device"
	"github.com/gatehouse/gatehouse/authserver/enrol"
	"github.com/gatehouse/gatehouse/authserver/login"
	"github.com/gatehouse/gatehouse/authserver/logout"
	"github.com/gatehouse/gatehouse/authserver/visitor"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// samples is one of each page in each of its states, with which themes are
// tried before they go live.
func samples() []web.Page {
	return slices.Concat(login.Samples(), account.Samples(), consent.Samples(), device.Samples(), logout.Samples(), visitor.Samples())
}

// CheckFiles reports everything that is wrong with a theme's folder and a file
// of countries, each "" where there is none, with file and line.
func CheckFiles(theme, countries string) error {
	_, err := lookup(countries)
	if theme == "" {
		return err
	}
	pages, problem := web.NewPages("", slog.New(slog.DiscardHandler))
	if problem != nil {
		return fmt.Errorf("built-in pages: %w", problem)
	}
	_, problem = pages.Prepare(theme, samples(), enrol.Letters()...)
	return errors.Join(err, problem)
}
