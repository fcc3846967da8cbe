// Package record is the durable form of what happened: the envelope that every record of a journal
// carries, its encoding, and the reader rule that says which records of a journal count.
//
// A record's key is type/id, its value the payload exactly as the user function produced it, and
// its header mr the envelope: one version byte and the protobuf message
// millrace.record.v1.Envelope. The codec is written by hand, because it runs for every record on
// the hot path and in every rebuild. Tests compare it with the generated code, and both with golden
// bytes.
//
// Everything is a pure function of its arguments: no clock, no goroutine, no I/O. Values belong to
// one goroutine at a time.
package record
