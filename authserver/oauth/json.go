package oauth

import "encoding/json"

// AppendString appends s as a JSON string. It is for messages that are written
// so often that reflection over them shows.
func AppendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic("oauth: a string does not encode: " + err.Error())
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// AppendMember appends another member of an object, with what goes before it:
// `,"name":`. It leaves out an empty s.
func AppendMember(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return AppendString(append(b, name...), s)
}
