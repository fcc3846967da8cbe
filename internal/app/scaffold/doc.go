// Package scaffold writes the module of a new service from a template.
//
// A template is a folder below templates and a row of the table. Its files are those of a real
// module, example.com/newservice, with .tmpl behind their names; that path and that name are
// replaced. go.mod and go.sum are made from those of millrace, third_party from its proto files.
package scaffold
