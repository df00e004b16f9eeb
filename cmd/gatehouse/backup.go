package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/backup"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/store/sqlstore"
)

func backupCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "backup -c FILE --passphrase-file FILE --out FILE", Short: "Write the authorization server's state, keys included, encrypted",
		Example: "  gatehouse backup -c gatehouse.yaml --passphrase-file backup.pass --out gatehouse.backup", Args: cobra.NoArgs,
	}
	path, passphrase := configFlag(c), passphraseFlag(c)
	out := c.Flags().String("out", "", "the file to write, - for standard output; it must not exist")
	_ = c.MarkFlagRequired("out") // the flag exists
	c.RunE = func(c *cobra.Command, _ []string) error {
		dsn, secret, err := backupInput(c, *path, *passphrase)
		if err != nil {
			return err
		}
		st, err := sqlstore.Open(c.Context(), dsn, sqlstore.Options{})
		if err != nil {
			return err
		}
		defer st.Close()
		write := func(w io.Writer) error {
			return backup.Write(w, secret, backup.Work, func(w io.Writer) error { return st.Dump(c.Context(), w) })
		}
		if *out == "-" {
			return write(c.OutOrStdout())
		}
		return writeNew(*out, write)
	}
	return c
}

func restoreCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "restore -c FILE --passphrase-file FILE BACKUP", Short: "Fill the configuration's empty database with a backup; - for standard input",
		Example: "  gatehouse restore -c gatehouse.yaml --passphrase-file backup.pass gatehouse.backup", Args: cobra.ExactArgs(1),
	}
	path, passphrase := configFlag(c), passphraseFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		dsn, secret, err := backupInput(c, *path, *passphrase)
		if err != nil {
			return err
		}
		in := c.InOrStdin()
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return usageError{err}
			}
			defer f.Close()
			in = f
		}
		err = backup.Read(in, secret, func(r io.Reader) error { return sqlstore.Restore(c.Context(), dsn, r) })
		if errors.Is(err, sqlstore.ErrNotEmpty) {
			return fmt.Errorf("%w: a backup is restored into a new one only", err)
		}
		if err != nil {
			return err
		}
		return recordRestore(c.Context(), dsn)
	}
	return c
}

// recordRestore makes the audit log say that what follows was written after a
// restore.
func recordRestore(ctx context.Context, dsn string) error {
	st, err := sqlstore.Open(ctx, dsn, sqlstore.Options{})
	if err != nil {
		return err
	}
	event := store.AuditEvent{Time: time.Now(), Action: audit.Restored, Outcome: audit.Success, Actor: audit.System}
	return errors.Join(st.AppendAudit(ctx, []store.AuditEvent{event}), st.Close())
}

func passphraseFlag(c *cobra.Command) *string {
	file := c.Flags().String("passphrase-file", "", "file with the passphrase; keep it apart from the backup and from the key encryption key")
	_ = c.MarkFlagRequired("passphrase-file") // the flag exists
	return file
}

// backupInput reads where the state is and the passphrase.
func backupInput(c *cobra.Command, config, passphraseFile string) (dsn, passphrase string, err error) {
	if err := readable(config); err != nil {
		return "", "", err
	}
	file, err := load(config, false)
	if err != nil {
		return "", "", report(c.ErrOrStderr(), "text", file, err)
	}
	if file.Store.Reveal() == "" {
		return "", "", usageError{fmt.Errorf("%s names no store", config)}
	}
	raw, err := readInput(c, passphraseFile)
	if err != nil {
		return "", "", usageError{err}
	}
	passphrase = strings.TrimRight(string(raw), "\r\n")
	if len(passphrase) < backup.MinPassphrase {
		return "", "", usageError{fmt.Errorf("--passphrase-file %s: %w", passphraseFile, backup.ErrPassphrase)}
	}
	return file.Store.Reveal(), passphrase, nil
}

// writeNew makes a private file that is whole or is not there.
func writeNew(path string, write func(io.Writer) error) error {
	if _, err := os.Lstat(path); err == nil {
		return usageError{fmt.Errorf("%s exists already", path)}
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return usageError{err}
	}
	err = errors.Join(write(f), f.Sync(), f.Close())
	if err == nil {
		// Link, unlike a rename, never replaces a file.
		err = os.Link(f.Name(), path)
	}
	return errors.Join(err, os.Remove(f.Name()))
}
