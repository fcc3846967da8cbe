package cli

import (
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/millrace-io/millrace/internal/app/node"
)

// progress shows the progress of a rebuild: a bar on a terminal, otherwise a line every few
// seconds. Short catch-ups are silent.
type progress struct {
	mu       sync.Mutex
	terminal io.Writer
	logger   *slog.Logger
	bar      *progressbar.ProgressBar
	seen     map[uint16]node.Progress
	printed  time.Time
}

const printEvery = 3 * time.Second

func newProgress(w io.Writer, logger *slog.Logger) *progress {
	p := &progress{logger: logger, seen: map[uint16]node.Progress{}, printed: time.Now()}
	if isTerminal(w) {
		p.terminal = w
	}
	return p
}

func (p *progress) report(r node.Progress) {
	if !r.Bulk {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[r.Address.Partition] = r
	var done, all int64
	for _, r := range p.seen {
		done += r.Next - r.From
		all += r.Until - r.From
	}
	if p.terminal != nil {
		if p.bar == nil {
			p.bar = progressbar.NewOptions64(all, progressbar.OptionSetWriter(p.terminal),
				progressbar.OptionSetDescription("rebuilding from the log"),
				progressbar.OptionShowIts(), progressbar.OptionSetItsString("records"),
				progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		}
		p.bar.ChangeMax64(all)
		_ = p.bar.Set64(done)
		return
	}
	if time.Since(p.printed) > printEvery {
		p.printed = time.Now()
		p.logger.Info("rebuilding from the log", "records", done, "of", all)
	}
}

// end removes the bar.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
