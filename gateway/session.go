package gateway

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/mutation"
)

// A browser reads its own writes without code of its own: the answer to a write over plain HTTP has
// a cookie with the token of the write, merged with that of earlier writes, and queries take it for
// the session token of their caller. Entities need none: their reads are strong.

const (
	// sessionAge is how long a browser keeps the token of a write. Rows are there long before.
	sessionAge = 10 * time.Minute
	// maxSessionBytes bounds a cookie's value. Browsers keep 4096 bytes with name and attributes.
	maxSessionBytes = 3500
	// headerFetchSite is sent by browsers only, with every request.
	headerFetchSite = "Sec-Fetch-Site"
)

// sessionCookie is the name of an app's cookie. Cookies do not know ports, so two apps on one host
// must have two names; and a token is of one generation of the journal.
func sessionCookie(app string) string {
	return "millrace_token_" + app + "_" + strconv.Itoa(entities.Generation)
}

// withSession adds the session token of the cookie to the headers of an action that has none. Of
// different ones none counts.
func withSession(app string, md entities.Metadata) entities.Metadata {
	isSession := func(e entities.MetadataEntry) bool { return e.Key == entities.SessionToken }
	if sent := md.Get(entities.SessionToken); sent != "" {
		if slices.ContainsFunc(md, func(e entities.MetadataEntry) bool { return isSession(e) && e.Text != sent }) {
			md = slices.DeleteFunc(md, isSession)
		}
		return md
	}
	for i := range md {
		if md[i].Key != "cookie" {
			continue
		}
		if token := cookieValue(app, md[i].Text); token != "" {
			return append(md, entities.MetadataEntry{Key: entities.SessionToken, Text: token})
		}
	}
	return md
}

// cookieValue is the app's token in a header; empty if it has none, or is malformed.
func cookieValue(app, header string) string {
	cookies, err := http.ParseCookie(header)
	if err != nil {
		return ""
	}
	for _, c := range cookies {
		if c.Name == sessionCookie(app) {
			return c.Value
		}
	}
	return ""
}

// keepSession sets the cookie of a browser: after a write to what it has with the write's token,
// and after a query that has dropped its token to nothing. A reply to a read sets none: it may come
// late, and must not take the token of a write away that was answered before it.
func (c *plainCall) keepSession(m *discovery.Method, reply *entities.Reply) {
	cookies := c.header["Cookie"]
	if len(cookies) == 0 && c.header[headerFetchSite] == nil {
		return
	}
	app := c.server.opts.App
	kept := ""
	for _, header := range cookies {
		if kept = cookieValue(app, header); kept != "" {
			break
		}
	}
	switch {
	case kept == "" && c.header[headerFetchSite] == nil: // not a browser, or one that asks without cookies
	case kept != "" && reply.Metadata.Get(entities.SessionDropped) != "":
		http.SetCookie(c.w, c.session("", -1))
	case reply.Token == "" || !m.Service.Kind.Spec().HasEntities || c.reads(m) && !mutation.On(mutation.LatePoll):
	default:
		http.SetCookie(c.w, c.session(mergedTokens(app, kept, reply.Token), int(sessionAge/time.Second)))
	}
}

// reads reports whether a call only reads, as far as the gateway can know.
func (c *plainCall) reads(m *discovery.Method) bool {
	return c.method == http.MethodGet || c.method == http.MethodHead || hasNoSideEffects(m)
}

func (c *plainCall) session(value string, maxAge int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // Secure: the gateway may be reached without TLS, and the token is no secret
		Name: sessionCookie(c.server.opts.App), Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
	}
}

// mergedTokens returns a token that covers both. One that is not of the app, or not of the present
// journal, counts for nothing.
func mergedTokens(app, before, now string) string {
	merged, err := entities.DecodeToken(app, before)
	added, wrong := entities.DecodeToken(app, now)
	switch {
	case wrong != nil:
		return before
	case err != nil:
		return now
	}
	merged.Merge(&added)
	if text := merged.Encode(); len(text) <= maxSessionBytes {
		return text
	}
	merged.Latest, merged.Positions = true, nil
	return merged.Encode()
}
