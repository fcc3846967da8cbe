package node

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/broker-adapter"
)

func (n *Node) openKafka(ctx context.Context) (broker.Log, error) { return nil, fmt.Errorf("kafka: %w", ctx.Err()) }
