package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/cmd/gatehouse/dev"
)

func runCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Serve by a configuration; SIGHUP or an edit reloads it",
		Args:  cobra.NoArgs,
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := readable(*path); err != nil {
			return err
		}
		lines := newLogs(c.ErrOrStderr())
		defer lines.Flush()
		logger := lines.logger()
		tuneMemory(logger)
		redis.SetLogger(redisLog{logger})
		file, err := loadChecked(*path)
		if err != nil {
			return report(c.ErrOrStderr(), "text", file, err)
		}
		for _, w := range file.Warnings {
			logger.Warn("configuration", "warning", w.String())
		}
		ctx := c.Context()
		p, err := newProcess(ctx, file, false, logger)
		if err != nil {
			return err
		}
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-hangups:
					_ = p.Reload(ctx) // logged there
				}
			}
		}()
		return p.Run(ctx)
	}
	return c
}

func hashPasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use: "hash-password", Short: "Print the argon2id hash of the password on standard input", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			line, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
			if err != nil && line == "" {
				return usageError{errors.New("hash-password: no password on standard input")}
			}
			hash, err := users.HashPassword(c.Context(), strings.TrimRight(line, "\r\n"))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), hash)
			return err
		},
	}
}

// demoBackendCommand runs one demo backend as a process of its own, for the
// composed set-up and the end-to-end tests.
func demoBackendCommand() *cobra.Command {
	c := &cobra.Command{Use: "demo-backend", Short: "Run a demo backend that registers itself in Consul", Args: cobra.NoArgs, Hidden: true}
	var b dev.BackendConfig
	c.Flags().StringVar(&b.Service, "service", "orders", "name in Consul")
	c.Flags().StringVar(&b.Instance, "id", "", "id in Consul; default: service and port")
	c.Flags().StringVar(&b.Listen, "listen", "127.0.0.1:0", "address to listen on")
	c.Flags().StringVar(&b.Registry, "registry", "http://127.0.0.1:8500", "URL of Consul")
	c.Flags().StringVar(&b.Advertise, "advertise", "", "IP address under which others reach it")
	c.RunE = func(c *cobra.Command, _ []string) error {
		b.Log = c.OutOrStdout()
		if err := dev.RunBackend(c.Context(), b); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
	return c
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print what this binary was built from", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "gatehouse", version())
			return err
		},
	}
}

// version is what the build recorded: the module's version or commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "of an unknown build"
	}
	text := info.Main.Version
	if text == "" {
		text = "(devel)"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			text += " " + s.Value
		case "vcs.modified":
			if s.Value == "true" {
				text += " modified"
			}
		}
	}
	return text + " " + info.GoVersion
}
