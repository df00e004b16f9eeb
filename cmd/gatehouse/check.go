package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/gatehouse/gatehouse/gateway/admin"
	"github.com/gatehouse/gatehouse/routes"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Report every problem of a configuration",
		Args:  cobra.NoArgs,
	}
	path, format := configFlag(c), outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := errors.Join(validOutput(*format), readable(*path)); err != nil {
			return err
		}
		file, err := loadChecked(*path)
		return report(c.OutOrStdout(), *format, file, err)
	}
	return c
}

// loadChecked reads a file and builds everything that it describes. The file
// is there to be reported on even when it is not valid.
func loadChecked(path string) (*routes.File, error) {
	file, err := load(path, false)
	if err == nil {
		err = checkFile(file)
	}
	return file, err
}

// finding is one line of `check -o json`.
type finding struct {
	File       string `json:"file,omitempty"`
	Line       int    `json:"line,omitempty"`
	Column     int    `json:"column,omitempty"`
	Severity   string `json:"severity"`
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"`
}

// report prints problems and warnings; errFindings if there is a problem.
func report(w io.Writer, format string, file *routes.File, err error) error {
	list := []finding{}
	for _, p := range problems(err) {
		// Two plugins may find the same mistake.
		if f := asFinding(p, "error"); !slices.Contains(list, f) {
			list = append(list, f)
		}
	}
	found := len(list) > 0
	if file != nil {
		for _, p := range file.Warnings {
			list = append(list, asFinding(p, "warning"))
		}
	}
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if err := e.Encode(list); err != nil {
			return err
		}
	} else {
		for _, f := range list {
			p := routes.Problem{Pos: routes.Pos{File: f.File, Line: f.Line, Column: f.Column}, Message: f.Message, Suggestion: f.Suggestion}
			if f.Severity == "warning" {
				p.Message = "warning: " + p.Message
			}
			fmt.Fprintln(w, p)
		}
		if !found {
			fmt.Fprintf(w, "%s: ok, %d routes, %d services\n", file.Path, len(file.Routes), len(file.Services))
		}
	}
	if found {
		return errFindings
	}
	return nil
}

func asFinding(p routes.Problem, severity string) finding {
	return finding{p.Pos.File, p.Pos.Line, p.Pos.Column, severity, p.Message, p.Suggestion}
}

// problems flattens what Load, the table and the plugins' Build return.
func problems(err error) []routes.Problem {
	switch e := err.(type) {
	case nil:
		return nil
	case routes.Problems:
		return e
	case routes.Problem:
		return []routes.Problem{e}
	case interface{ Unwrap() []error }:
		var all []routes.Problem
		for _, one := range e.Unwrap() {
			all = append(all, problems(one)...)
		}
		return all
	}
	var wrapped routes.Problems
	if errors.As(err, &wrapped) {
		return wrapped
	}
	return []routes.Problem{{Message: err.Error()}}
}

func routesCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "routes -c FILE",
		Short: "Print the route table",
		Args:  cobra.NoArgs,
	}
	path, format := configFlag(c), outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := errors.Join(validOutput(*format), readable(*path)); err != nil {
			return err
		}
		file, err := loadChecked(*path)
		if err != nil {
			return report(c.ErrOrStderr(), "text", file, err)
		}
		return printRoutes(c.OutOrStdout(), *format, file.Routes)
	}
	return c
}

func printRoutes(w io.Writer, format string, list []*routes.Route) error {
	views := []admin.RouteView{}
	for _, r := range list {
		views = append(views, admin.View(r))
	}
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(views)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tHOST\tPATH\tMETHODS\tSERVICE\tACCESS\tLIMITS\tMODE")
	for _, v := range views {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, orAny(v.Hosts), v.Path, orAny(v.Methods),
			v.Service, v.Access, orNone(v.Limits), v.Mode)
	}
	return t.Flush()
}

func orAny(list []string) string {
	if len(list) == 0 {
		return "any"
	}
	return strings.Join(list, " ")
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, "; ")
}
