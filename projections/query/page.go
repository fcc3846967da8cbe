package query

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"

	"github.com/millrace-io/millrace/entities"
)

// A page token says where a list goes on. It is sealed, so that callers can neither read nor make
// one, and bound to what it is a page of.

// KeySize is the size of the key that seals page tokens.
const KeySize = 32

// What is sealed: the first byte.
const (
	pageVersion   = 1
	resumeVersion = 2
)

const (
	nonceSize = 12
	// maxPageToken bounds what is decoded: a tuple of nine texts and the positions of 256
	// partitions, in base64.
	maxPageToken = 32 << 10
)

// errPageToken: a page token was not issued for this list.
var errPageToken = errors.New("it was not issued here, or is damaged")

// page is the content of a page token, and of a resume token of a watch, which has positions only.
type page struct {
	dataset   uint32
	method    string
	arguments [sha256.Size]byte
	// frontier is the last tuple that was examined: the next page begins behind it.
	frontier []byte
	// table is the number of the index that the tuple is of, plus one; 0 for the key.
	table uint32
	// positions are what this page included, so that the next one includes it too.
	positions []entities.Position
}

// sealer seals page tokens.
type sealer struct{ aead cipher.AEAD }

func newSealer(key [KeySize]byte) (sealer, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCM(block)
	return sealer{aead}, err
}

// seal returns a page as callers get it. A nonce is used once.
func (s sealer) seal(version byte, p *page, nonce [nonceSize]byte) string {
	buf := []byte{version}
	buf = binary.BigEndian.AppendUint32(buf, p.dataset)
	buf = binary.BigEndian.AppendUint32(buf, p.table)
	buf = append(buf, p.arguments[:]...)
	buf = append(binary.AppendUvarint(buf, uint64(len(p.method))), p.method...)
	buf = append(binary.AppendUvarint(buf, uint64(len(p.frontier))), p.frontier...)
	for _, at := range p.positions {
		buf = binary.AppendUvarint(buf, uint64(at.Partition)) //nolint:gosec // partitions are not negative
		buf = binary.AppendUvarint(buf, uint64(at.Next))      //nolint:gosec // offsets are not negative
	}
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nonce[:], nonce[:], buf, nil))
}

// open reads a page token.
func (s sealer) open(version byte, text string) (*page, error) {
	if len(text) > maxPageToken {
		return nil, errPageToken
	}
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(sealed) < nonceSize {
		return nil, errPageToken
	}
	buf, err := s.aead.Open(nil, sealed[:nonceSize], sealed[nonceSize:], nil)
	if err != nil {
		return nil, errPageToken
	}
	return parsePage(version, buf)
}

// parsePage reads the content of a token. What it refuses was sealed by another version.
func parsePage(version byte, buf []byte) (*page, error) {
	const fixed = 1 + 4 + 4 + sha256.Size
	if len(buf) < fixed || buf[0] != version {
		return nil, errPageToken
	}
	p := &page{
		dataset: binary.BigEndian.Uint32(buf[1:]), table: binary.BigEndian.Uint32(buf[5:]),
		arguments: [sha256.Size]byte(buf[9:fixed]),
	}
	rest, ok := buf[fixed:], true
	number := func() uint64 {
		n, size := binary.Uvarint(rest)
		if size <= 0 {
			ok = false
			return 0
		}
		rest = rest[size:]
		return n
	}
	text := func() []byte {
		n := number()
		if !ok || n > uint64(len(rest)) {
			ok = false
			return nil
		}
		part := rest[:n]
		rest = rest[n:]
		return part
	}
	p.method, p.frontier = string(text()), text()
	for ok && len(rest) > 0 {
		partition, next := number(), number()
		if partition >= entities.Slots || next > math.MaxInt64 ||
			version == pageVersion && len(p.positions) == entities.MaxPositions || len(p.positions) == entities.Slots {
			return nil, errPageToken
		}
		p.positions = append(p.positions, entities.Position{Partition: int32(partition), Next: int64(next)})
	}
	if !ok {
		return nil, errPageToken
	}
	return p, nil
}
