"""Real but throwaway parts that tests start: certificates, brokers, devices."""
