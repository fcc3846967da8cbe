// Package proto has the proto files that services outside this repository import.
package proto

import "embed"

// Imports are the files by the paths under which proto files import them.
//
//go:embed cloudstate/entity_key.proto google/api millrace/effect/v1
var Imports embed.FS
