package main

import "context"

func (b *bench) size(ctx context.Context) error    { return nil }
func (b *bench) rebuild(ctx context.Context) error { return nil }
