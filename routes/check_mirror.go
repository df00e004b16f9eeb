package routes

// mirror checks the service that gets copies and makes the route to it.
func (c *checker) mirror(r *Route) {
	m := r.Mirror
	if c.broken(&r.Mirror) || !c.required(&m.Service, "mirror: service", m.Pos) {
		return
	}
	if !c.written(&m.Share) {
		m.Share = 1
	}
	if !c.written(&m.MaxInFlight) {
		m.MaxInFlight = 64
	}
	within(c, &m.MaxInFlight, "max_in_flight", 1, 10_000)
	pos := c.at(&m.Service, m.Pos)
	if m.Service == r.Service {
		c.report(pos, "mirror: service: %q is the route's own", m.Service)
	}
	m.Route = c.branch(r, m.Service, pos)
}
