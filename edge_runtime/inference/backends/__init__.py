"""One module for each inference engine, behind the port in inference.backend; none knows another."""
