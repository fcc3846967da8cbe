package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/internal/plural"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// applyCommand applies the definitions of a folder.
func applyCommand() *cobra.Command {
	var folder string
	r := &adminv1.ApplyDefinitionsRequest{}
	cmd := &cobra.Command{
		Use: "apply -f DIR", Short: "Apply the definitions of projections in a folder",
		Long: `Apply the definitions of projections in a folder: the YAML files in DIR, or one file. They are checked as by check,
and against what is applied; then all of them are applied, or none. A version that is applied already with the same
content is left as it is; other content needs another metadata.version. What is not in the folder stays applied.

A new version is built beside the one in force, and promoted when it is ready, unless its rollout is manual.`,
		Example: "  millrace apply -f projections\n  millrace apply -f projections --dry-run",
		Args:    exactly(0, "no arguments: name the folder with -f"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if folder == "" {
				return usagef("name the folder with the definitions, as in `millrace apply -f projections`")
			}
			res, err := applyFolder(cmd, folder, r)
			if err != nil {
				return err
			}
			err = printAll(outputOf(cmd, cmd.OutOrStdout()), outcomeRows(), res.GetOutcomes())
			if r.GetDryRun() {
				err = errors.Join(err, printf(cmd.ErrOrStderr(), "nothing was applied: this was a dry run\n"))
			}
			return err
		},
	}
	addClient(cmd)
	addOutput(cmd)
	cmd.Flags().StringVarP(&folder, "file", "f", "", "folder with definitions, or a file")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only say what would be applied")
	cmd.Flags().BoolVar(&r.BreakApi, "break-api", false, "even if callers of a generated service could not go on")
	return cmd
}

// diffCommand compares the definitions of a folder with what is applied.
func diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "diff DIR", Short: "Compare the definitions of projections in a folder with what is applied",
		Long: `Compare the definitions of projections in a folder with the versions in force, and say in words what is otherwise and
what it costs: what is built again, and which callers of a generated service could not go on. Nothing is applied. The
exit code is 6 if there is anything to apply.`,
		Example: "  millrace diff projections",
		Args:    exactly(1, "a folder with definitions, as in `millrace diff projections`"),
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := applyFolder(cmd, args[0], &adminv1.ApplyDefinitionsRequest{DryRun: true, BreakApi: true})
			if err != nil {
				return err
			}
			o := outputOf(cmd, cmd.OutOrStdout())
			if chosen(cmd) == "" {
				o.format = formatTable
			}
			if o.format != formatTable {
				err = printAll(o, outcomeRows(), res.GetOutcomes())
			} else {
				for _, out := range res.GetOutcomes() {
					err = errors.Join(err, printDifferences(o, out))
				}
			}
			isNew := func(out *adminv1.DefinitionOutcome) bool { return out.GetResult() == resultApplied }
			if err == nil && slices.ContainsFunc(res.GetOutcomes(), isNew) {
				return errDifferences
			}
			return err
		},
	}
	addClient(cmd)
	addOutputWith(cmd, "text")
	return cmd
}

// resultApplied is the result of a definition that is applied, or would be.
const resultApplied = "applied"

// printDifferences says what is otherwise in one definition.
func printDifferences(o output, out *adminv1.DefinitionOutcome) error {
	name := out.GetName() + " " + out.GetVersion()
	switch {
	case out.GetResult() != resultApplied:
		return printf(o.w, "%s: %s\n", name, cmp.Or(out.GetWarning(), "it is applied"))
	case out.GetBefore() == "":
		return printf(o.w, "%s: it is new\n", name)
	}
	err := printf(o.w, "%s, compared with version %s:\n", name, out.GetBefore())
	for _, line := range out.GetDifferences() {
		err = errors.Join(err, printf(o.w, "  %s\n", line))
	}
	if len(out.GetDifferences()) == 0 {
		err = errors.Join(err, printf(o.w, "  it means the same\n"))
	}
	return err
}

// applyFolder has the definitions of a folder applied, or says what is wrong with them.
func applyFolder(cmd *cobra.Command, folder string,
	r *adminv1.ApplyDefinitionsRequest,
) (*adminv1.ApplyDefinitionsResponse, error) {
	folder, files, err := readDefinitions(folder)
	if err != nil {
		return nil, usageError{err}
	}
	r.Files = nil
	for _, f := range files {
		r.Files = append(r.GetFiles(), &adminv1.DefinitionFile{Name: f.Name, Text: f.Text})
	}
	var res *adminv1.ApplyDefinitionsResponse
	err = admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) (err error) {
		res, err = a.ApplyDefinitions(ctx, r)
		return err
	})
	if code := status.Code(err); !r.GetDryRun() && (code == codes.DeadlineExceeded || code == codes.Unavailable) {
		return nil, errors.Join(err, printf(cmd.ErrOrStderr(),
			"it is not known whether this was applied: apply it again, which changes nothing if it was\n"))
	}
	if err != nil {
		return nil, err
	}
	for _, warning := range res.GetWarnings() {
		err = errors.Join(err, printf(cmd.ErrOrStderr(), "%s\n", filepath.Join(folder, warning)))
	}
	if len(res.GetProblems()) == 0 {
		return res, err
	}
	for _, p := range res.GetProblems() {
		row := &problemRow{
			File: filepath.Join(folder, p.GetFile()), Line: int(p.GetLine()), Column: int(p.GetColumn()), Rule: p.GetRule(),
			Where: p.GetWhere(), Message: p.GetMessage(), Fix: p.GetFix(),
		}
		err = errors.Join(err, row.print(cmd.ErrOrStderr()))
	}
	if more := res.GetMoreProblems(); more > 0 {
		err = errors.Join(err, printf(cmd.ErrOrStderr(), "and %d more: fix these first\n", more))
	}
	problems := len(res.GetProblems()) + int(res.GetMoreProblems())
	return nil, errors.Join(&problemsError{problems: problems, files: len(files), applying: !r.GetDryRun()}, err)
}

// outcomeRows are what became of definitions.
func outcomeRows() kindOf[*adminv1.DefinitionOutcome] {
	type outcome = *adminv1.DefinitionOutcome
	return kindOf[outcome]{
		columns: []column[outcome]{
			{"KIND", outcome.GetKind},
			{"NAME", outcome.GetName},
			{"VERSION", outcome.GetVersion},
			{"RESULT", outcome.GetResult},
			{"ROWS", func(o outcome) string {
				switch {
				case o.GetDataset() == 0, o.GetResult() != resultApplied:
					return "-"
				case o.GetShares():
					return "those of an applied version"
				default:
					return "built from the log"
				}
			}},
			{"NOTE", func(o outcome) string {
				switch {
				case o.GetWarning() != "", o.GetBefore() == "":
					return o.GetWarning()
				case len(o.GetDifferences()) == 0:
					return "means the same as version " + o.GetBefore()
				default:
					return fmt.Sprintf("%s from version %s", plural.Of(len(o.GetDifferences()), "difference"), o.GetBefore())
				}
			}},
		},
		name: outcome.GetName,
	}
}

// definitionsCommand lists what is applied.
func definitionsCommand() *cobra.Command {
	r := &adminv1.ListDefinitionsRequest{}
	cmd := &cobra.Command{
		Use: "definitions", Short: "List the applied definitions, or their history", Args: exactly(0, "no arguments"),
		Long: `List the versions of all definitions that are applied and not dropped: which is promoted, which is being built, and
which is kept for a rollback. With --history, list the newest changes, oldest first.`,
		Example: "  millrace definitions\n  millrace definitions --history",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				res, err := a.ListDefinitions(ctx, r)
				if err != nil {
					return err
				}
				o := outputOf(cmd, cmd.OutOrStdout())
				if o.format == formatTable && len(res.GetVersions())+len(res.GetChanges()) == 0 {
					return printf(cmd.ErrOrStderr(), "no definitions are applied\n")
				}
				if r.GetHistory() {
					return printAll(o, changeRows(), res.GetChanges())
				}
				return printAll(o, versionRows(), res.GetVersions())
			})
		},
	}
	addClient(cmd)
	addOutput(cmd)
	cmd.Flags().BoolVar(&r.History, "history", false, "the newest changes, oldest first")
	return cmd
}

// versionRows are applied versions.
func versionRows() kindOf[*adminv1.AppliedVersion] {
	type version = *adminv1.AppliedVersion
	return kindOf[version]{
		columns: []column[version]{
			{"KIND", version.GetKind},
			{"NAME", version.GetName},
			{"VERSION", version.GetVersion},
			{"STAGE", version.GetStage},
			{"SINCE", func(v version) string { return when(v.GetSince()) }},
			{"FILE", version.GetFile},
			{"NOTE", version.GetNote},
		},
		name: version.GetName,
	}
}

// changeRows are changes of definitions.
func changeRows() kindOf[*adminv1.DefinitionChange] {
	type change = *adminv1.DefinitionChange
	return kindOf[change]{
		columns: []column[change]{
			{"REVISION", func(c change) string { return strconv.FormatInt(c.GetRevision(), 10) }},
			{"TIME", func(c change) string { return when(c.GetAt()) }},
			{"KIND", change.GetKind},
			{"NAME", change.GetName},
			{"VERSION", change.GetVersion},
			{"WHAT", change.GetWhat},
		},
		name: func(c change) string { return strconv.FormatInt(c.GetRevision(), 10) },
	}
}
