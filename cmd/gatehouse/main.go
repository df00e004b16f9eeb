// Command gatehouse is an API gateway with an OAuth 2.1 / OpenID Connect
// authorization server built in. This package owns the commands and the wiring
// of the parts; what a part does is in its own package.
//
//	gatehouse dev
//	gatehouse run -c gatehouse.yaml
//	gatehouse check -c gatehouse.yaml
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes besides 0.
const (
	exitFailed = 1 // findings, or it did not work
	exitUsage  = 2 // wrong usage
)

// errFindings ends a command with exitFailed when all is said already.
var errFindings = errors.New("findings")

// usageError is a mistake in how a command was called.
type usageError struct{ error }

// execute runs one command and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "gatehouse",
		Short:         "An API gateway with an OAuth 2.1 / OpenID Connect authorization server built in",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(runCommand(), devCommand(), checkCommand(), routesCommand(), hashPasswordCommand(), demoBackendCommand(), versionCommand(), healthcheckCommand())
	root.AddCommand(clientCommand(), userCommand(), keyCommand(), sessionCommand(), tokenCommand(), auditCommand(), backupCommand(), restoreCommand())
	root.SetUsageTemplate(usage)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFindings):
		return exitFailed
	case errors.As(err, &usage), isUnknownCommand(err):
		fmt.Fprintln(stderr, "gatehouse:", err)
		return exitUsage
	}
	fmt.Fprintln(stderr, "gatehouse:", err)
	return exitFailed
}

// usage shows examples first: most people need one line.
const usage = `{{if .HasExample}}Examples:
{{.Example}}

{{end}}Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]

Commands:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of all commands:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`

// isUnknownCommand recognises cobra's error for a command or argument that it
// does not know; cobra has no type for it.
func isUnknownCommand(err error) bool {
	text := err.Error()
	for _, prefix := range []string{"unknown command", "accepts ", "requires ", "required flag", "if any flags in the group"} {
		if len(text) >= len(prefix) && text[:len(prefix)] == prefix {
			return true
		}
	}
	return false
}

// configFlag adds -c, without which no file is read.
func configFlag(c *cobra.Command) *string {
	path := c.Flags().StringP("config", "c", "", "the configuration file")
	_ = c.MarkFlagRequired("config") // the flag exists
	return path
}

// outputFlag adds -o with its choices.
func outputFlag(c *cobra.Command) *string {
	return c.Flags().StringP("output", "o", "text", "text or json")
}

func validOutput(format string) error {
	if format != "text" && format != "json" {
		return usageError{fmt.Errorf("-o %s: want text or json", format)}
	}
	return nil
}

// readable makes a file that is not there a mistake in usage, not a finding.
func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return usageError{err}
	}
	return f.Close()
}
