package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/entities"
)

// TestALeftOverBodyIsNoRequest: a call over HTTP/1.1 ends before its body has been read. What is
// left of the body is not taken for the next request of the connection.
func TestALeftOverBodyIsNoRequest(t *testing.T) {
	const path = "/shop.v1.StreamService/In"
	refuse := func(context.Context, *entities.Stream) error {
		return &entities.Error{
			Reason: entities.FunctionRefused, Code: uint32(codes.FailedPrecondition), Outcome: entities.Refused, Message: "no",
		}
	}
	for _, contentType := range []string{
		"application/grpc-web+proto", "application/grpc-web-text+proto", "application/connect+proto",
		"application/connect+json",
	} {
		for _, most := range []int{0, 1 << 10} {
			fake := &dispatcher{stream: refuse, unary: func(context.Context, *entities.Command) (*entities.Reply, error) {
				return nil, entities.Errorf(entities.Internal, entities.Unknown, "a body was served")
			}}
			w := newWorld(t, fake, nil)
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", w.addr)
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			hidden := "POST /shop.v1.CartService/Plain HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
			body := frame(0, "\x0a\x01a") + hidden + strings.Repeat("x", most)
			rest := body[len(frame(0, "\x0a\x01a")):]
			if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
				path, contentType, len(body), strings.TrimSuffix(body, rest)); err != nil {
				t.Fatal(err)
			}
			from := bufio.NewReader(conn)
			for n := range 3 { // as many responses as the connection gives
				response, err := http.ReadResponse(from, nil)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				if n == 1 && response.StatusCode != http.StatusNotFound || n == 2 {
					t.Errorf("%s, %d bytes more: response %d has status %s", contentType, most, n, response.Status)
				}
				if n == 0 { // the call is over: what is left of its body comes now
					_, _ = fmt.Fprintf(conn, "%sGET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", rest)
				}
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			if last := fake.last(); last != nil && last.Method == "Plain" {
				t.Errorf("%s, %d bytes more: the body was served as a request", contentType, most)
			}
		}
	}
}
