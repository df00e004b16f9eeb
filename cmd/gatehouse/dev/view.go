package dev

// What follows is the form of Consul's answers. Fields that Consul has for
// features which this registry lacks are absent.

const (
	datacenter = "dc1"
	nodeID     = "67617465-686f-7573-6520-646576000000"
	nodeName   = "gatehouse-dev"
	nodeAddr   = "127.0.0.1"
)

// node is the only node.
var node = nodeView{ID: nodeID, Node: nodeName, Address: nodeAddr, Datacenter: datacenter,
	TaggedAddresses: map[string]string{"lan": nodeAddr, "wan": nodeAddr}, Meta: map[string]string{}, CreateIndex: 1, ModifyIndex: 1}

var nodeCheck = checkView{Node: nodeName, CheckID: "serfHealth", Name: "Serf Health Status", Status: passing,
	Output: "Agent alive and reachable", ServiceTags: []string{}, CreateIndex: 1, ModifyIndex: 1}

type nodeView struct {
	ID              string
	Node            string
	Address         string
	Datacenter      string
	TaggedAddresses map[string]string
	Meta            map[string]string
	CreateIndex     uint64
	ModifyIndex     uint64
}

type serviceView struct {
	ID                string
	Service           string
	Tags              []string
	Address           string
	Meta              map[string]string
	Port              int
	Weights           weights
	EnableTagOverride bool
	Datacenter        string
	CreateIndex       uint64
	ModifyIndex       uint64
}

type checkView struct {
	Node        string
	CheckID     string
	Name        string
	Status      string
	Notes       string
	Output      string
	ServiceID   string
	ServiceName string
	ServiceTags []string
	Type        string
	Interval    string
	Timeout     string
	CreateIndex uint64
	ModifyIndex uint64
}

type healthView struct {
	Node    nodeView
	Service serviceView
	Checks  []checkView
}

type catalogView struct {
	ID                       string
	Node                     string
	Address                  string
	Datacenter               string
	TaggedAddresses          map[string]string
	NodeMeta                 map[string]string
	ServiceID                string
	ServiceName              string
	ServiceAddress           string
	ServicePort              int
	ServiceTags              []string
	ServiceMeta              map[string]string
	ServiceWeights           weights
	ServiceEnableTagOverride bool
	CreateIndex              uint64
	ModifyIndex              uint64
}

func (s *service) view() serviceView {
	return serviceView{ID: s.ID, Service: s.Name, Tags: s.tags(), Address: s.Address, Meta: cloneMeta(s.Meta), Port: s.Port,
		Weights: *s.Weights, EnableTagOverride: s.EnableTagOverride, Datacenter: datacenter, CreateIndex: s.created, ModifyIndex: s.modified}
}

func (s *service) catalogView() catalogView {
	return catalogView{ID: nodeID, Node: nodeName, Address: nodeAddr, Datacenter: datacenter,
		TaggedAddresses: node.TaggedAddresses, NodeMeta: node.Meta,
		ServiceID: s.ID, ServiceName: s.Name, ServiceAddress: s.Address, ServicePort: s.Port, ServiceTags: s.tags(),
		ServiceMeta: cloneMeta(s.Meta), ServiceWeights: *s.Weights, ServiceEnableTagOverride: s.EnableTagOverride,
		CreateIndex: s.created, ModifyIndex: s.modified}
}

func (c *check) view() checkView {
	return checkView{Node: nodeName, CheckID: c.CheckID, Name: c.Name, Status: c.status, Notes: c.Notes, Output: c.output,
		ServiceID: c.service.ID, ServiceName: c.service.Name, ServiceTags: c.service.tags(), Type: c.kind(),
		Interval: c.Interval, Timeout: c.Timeout, CreateIndex: c.created, ModifyIndex: c.changed}
}

// tags is never nil: Consul's clients expect a list.
func (s *service) tags() []string {
	if s.Tags == nil {
		return []string{}
	}
	return s.Tags
}
